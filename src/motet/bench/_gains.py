"""What a method gains over training each task alone, with intervals over seeds."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SINGLE = "single"  # a network for each task alone: what every gain is measured against

# Student's t at 97.5% for 1, 2, ... degrees of freedom, and 1.96 past them.
T_VALUES = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
    2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its 95% interval by Student's t; without an interval where there is one seed.

    Args:
        mean: over seeds.
        low: lower end.
        high: upper end.
        count: seeds.
    """

    mean: float
    low: float | None
    high: float | None
    count: int

    def to_dict(self) -> dict[str, Any]:
        """The estimate as plain JSON data, rounded."""
        interval = None if self.low is None or self.high is None else [round(self.low, 4), round(self.high, 4)]
        return {"mean": round(self.mean, 4), "ci95": interval, "seeds": self.count}


def estimate(values: Sequence[float]) -> Estimate | None:
    """The mean of some seeds' values with its interval; None without a value."""
    count = len(values)
    if count == 0:
        return None
    mean = math.fsum(values) / count
    if count == 1:
        return Estimate(mean, None, None, 1)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    reach = (T_VALUES[count - 2] if count - 2 < len(T_VALUES) else 1.96) * deviation / math.sqrt(count)
    return Estimate(mean, mean - reach, mean + reach, count)


class Gains:
    """The cells of one grid, asked for each method's gain on each problem.

    Δm of a seed = 100 / T · Σ_t ±(score_t − single_t) / single_t, with the score of that task's own network of the
    same seed, and a minus where less is better: positive is better than training each task alone.

    Args:
        cells: as `run_grid` gives them.
        problems: what the problems are, by name.
        base: the method whose costs are one.
    """

    def __init__(
        self, cells: Iterable[Mapping[str, Any]], problems: Mapping[str, Mapping[str, Any]], base: str = "equal"
    ) -> None:
        self.problems, self.base = problems, base
        self.cells = {(cell["problem"], cell["method"], cell["seed"]): cell for cell in cells}
        self.methods = list(dict.fromkeys(method for _, method, _ in self.cells))
        self.seeds = sorted({seed for _, _, seed in self.cells})

    def by_seed(self, problem: str, method: str) -> dict[int, float]:
        """Δm in percent of each seed that has the method's and the single-task scores."""
        gains = {}
        for seed in self.seeds:
            own, single = self._scores(problem, method, seed), self._scores(problem, SINGLE, seed)
            if own and single:
                ratios = [
                    self._sign(problem, task) * (own[task] - score) / abs(score) for task, score in single.items()
                ]
                gain = 100.0 * math.fsum(ratios) / len(ratios)
                if math.isfinite(gain):
                    gains[seed] = gain
        return gains

    def gain(self, problem: str, method: str) -> Estimate | None:
        """Δm in percent over seeds."""
        return estimate(list(self.by_seed(problem, method).values()))

    def difference(self, problem: str, better: str, worse: str) -> Estimate | None:
        """Δm of one method minus that of another in percentage points, paired by seed."""
        one, two = self.by_seed(problem, better), self.by_seed(problem, worse)
        return estimate([one[seed] - two[seed] for seed in one if seed in two])

    def scores(self, problem: str, method: str) -> dict[str, float]:
        """The mean over seeds of each task's score."""
        found = [scores for seed in self.seeds if (scores := self._scores(problem, method, seed))]
        return {task: round(math.fsum(s[task] for s in found) / len(found), 5) for task in (found[0] if found else {})}

    def cost(self, problem: str, method: str, clock: str = "wall_seconds") -> float | None:
        """The median over seeds of the seconds of training, as a ratio to those of the base."""
        ratios = []
        for seed in self.seeds:
            own, base = self.cells.get((problem, method, seed)), self.cells.get((problem, self.base, seed))
            if own and base and own["status"] == base["status"] == "done" and base[clock] > 0:
                ratios.append(own[clock] / base[clock])
        ratios.sort()
        half = len(ratios) // 2
        return round((ratios[half] + ratios[-half - 1]) / 2, 2) if ratios else None

    def parameters(self, problem: str, method: str) -> int | None:
        """How many numbers are trained, for `single` in all its networks; None in cells of before they were counted."""
        found = (self.cells.get((problem, method, seed), {}).get("parameters") for seed in self.seeds)
        return next((count for count in found if count is not None), None)

    def failures(self, problem: str, method: str) -> list[str]:
        """What went wrong, a line for each seed without a score."""
        cells = [cell for seed in self.seeds if (cell := self.cells.get((problem, method, seed)))]
        return [f"seed {cell['seed']}: {cell['status']}: {cell['error']}" for cell in cells if cell["status"] != "done"]

    def _sign(self, problem: str, task: str) -> float:
        more = self.problems[problem]["higher_is_better"]
        return 1.0 if (more if isinstance(more, bool) else more[task]) else -1.0

    def _scores(self, problem: str, method: str, seed: int) -> dict[str, float]:
        cell = self.cells.get((problem, method, seed))
        scores = cell["scores"] if cell else {}
        return scores if all(math.isfinite(score) for score in scores.values()) else {}
