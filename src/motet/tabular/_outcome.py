"""Who serves each target, and the proof: what goes into `metrics.json`."""

import itertools
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from motet.tabular._blend import LEAST_ROWS, cross_fitted, fit_blend, mixed
from motet.tabular._candidates import Candidates
from motet.tabular._dependence import block_length, row_errors
from motet.tabular._guard import Comparison, HeldOut, draw_weights
from motet.tabular._prepared import Prepared
from motet.tasks import (
    Calibration,
    Interval,
    Task,
    calibration_curve,
    calibration_error,
    fit_calibration,
    fit_interval,
)

OWN = ("own_network", "own_lightgbm")
NUMBERS = ("regression", "count", "quantile")


@dataclass(frozen=True)
class Rules:
    """How the guard decides.

    Args:
        margin: how much worse in percent the shared model may at most be, by the lower end of the interval.
        resamples: bootstrap resamples.
        level: share of rows that an interval is to cover.
        seed: of the resamples.
        deploy: `best` lets a blend of the candidates serve where it is proven better; `small` does not.
    """

    margin: float = 0.5
    resamples: int = 500
    level: float = 0.9
    seed: int = 0
    deploy: str = "small"


@dataclass(frozen=True)
class Outcome:
    """The decision for one task, and its part of `metrics.json`.

    Args:
        task: the fitted task.
        served_by: `shared`, `own_network`, `own_lightgbm` or `blend`.
        shares: how much each candidate gives to the answer; one alone unless it is a blend.
        calibration: of the answer.
        interval: of the answer, or None.
        document: the task's part of `metrics.json`.
    """

    task: Task
    served_by: str
    shares: dict[str, float]
    calibration: Calibration
    interval: Interval | None
    document: dict[str, Any]


def decide(prepared: Prepared, found: Candidates, rules: Rules) -> list[Outcome]:
    """Chooses on the choose rows who serves each task, and measures on the test rows what that is worth."""
    num_choose = len(prepared.split.choose)
    parts = (
        Resampled(prepared, found.rows[:num_choose], resamples=rules.resamples, seed=rules.seed),
        Resampled(prepared, found.rows[num_choose:], resamples=rules.resamples, seed=rules.seed + 1),
    )
    return [_decide(prepared, found, task, rules, *parts) for task in prepared.tasks]


class Resampled:
    """The resamples of one part of the rows, drawn once for each length of block.

    Args:
        prepared: whose groups and order say what is drawn together.
        rows: numbers of the part's rows.
        resamples: R.
        seed: of the draw.
    """

    def __init__(self, prepared: Prepared, rows: np.ndarray, *, resamples: int, seed: int) -> None:
        self.prepared, self.rows, self.resamples, self.seed = prepared, rows, resamples, seed
        self._weights: dict[int, np.ndarray] = {}

    def held_out(
        self, task: Task, estimates: dict[str, np.ndarray], targets: np.ndarray, present: np.ndarray
    ) -> HeldOut:
        """One task's labelled rows of this part; rows of a series are drawn in blocks.

        Args:
            task: the fitted task.
            estimates: of the labelled rows, by candidate.
            targets: of the labelled rows.
            present: over all rows of the part, which are labelled.
        """
        sequence = self.prepared.sequence(self.rows[present])
        block = 1
        if self.prepared.groups is None:
            # Not the constant: where a table is sorted by its target, that one's errors follow the target.
            candidates = [part for name, part in estimates.items() if name != "constant"]
            errors = [row_errors(task, part, targets)[sequence] for part in candidates]
            pairs = itertools.combinations(errors, 2)
            block = max((block_length(one - other) for one, other in pairs), default=1)
        together = self.prepared.draws(self.rows, block=block)
        if block not in self._weights:
            self._weights[block] = draw_weights(
                len(self.rows), resamples=self.resamples, seed=self.seed, groups=together
            )
        draws = None if together is None else len(np.unique(together[present]))
        return HeldOut(task, estimates, targets, self._weights[block][:, present], draws=draws)

    def halves(self, present: np.ndarray) -> np.ndarray:
        """Which half each labelled row is in: every other of twenty stretches of rows, or every other group."""
        together = self.prepared.draws(self.rows)
        if together is not None:
            return np.unique(together[present], return_inverse=True)[1] % 2 == 0
        places = np.empty(int(present.sum()), dtype=np.int64)
        places[self.prepared.sequence(self.rows[present])] = np.arange(len(places))
        return places // (len(places) // 20 + 1) % 2 == 0


def _decide(
    prepared: Prepared, found: Candidates, task: Task, rules: Rules, choose: Resampled, test: Resampled
) -> Outcome:
    targets, present = prepared.targets(task, found.rows)
    num_choose = int(present[: len(choose.rows)].sum())
    chosen, tested = targets[:num_choose], targets[num_choose:]
    raw = {name: found.estimates[name][task.name][present] for name in ("shared", *OWN)}
    shares = {name: {name: 1.0} for name in raw}
    if rules.deploy == "best" and num_choose >= LEAST_ROWS:
        shares["blend"], raw["blend"] = _blend(task, raw, chosen, choose.halves(present[: len(choose.rows)]))
    calibrations = {name: fit_calibration(task, part[:num_choose], chosen) for name, part in raw.items()}
    good = {name: calibrations[name].apply(part) for name, part in raw.items()}

    constant = task.baseline(prepared.targets(task, prepared.split.train)[0])
    good["constant"] = np.repeat(constant, len(targets), axis=0)
    choices = {name: part[:num_choose] for name, part in good.items()}
    tests = {name: part[num_choose:] for name, part in good.items()}
    chosen_part = choose.held_out(task, choices, chosen, present[: len(choose.rows)])
    tested_part = test.held_out(task, tests, tested, present[len(choose.rows) :])
    # The trees stand for the target unless its own network is proven better: with few rows the better score is luck.
    own = "own_network" if chosen_part.compare("own_network", "own_lightgbm").low > 0 else "own_lightgbm"
    guard = chosen_part.compare("shared", own)
    verdict = guard.verdict(rules.margin)
    served = "shared" if verdict == "not worse" else own
    if "blend" in good and chosen_part.compare("blend", served).low > 0:
        served = "blend"
    bounds = fit_interval(task, good[served][:num_choose], chosen, level=rules.level)
    gain = tested_part.compare(served, own) if served != own else Comparison(0.0, 0.0, 0.0)
    skill = tested_part.skill(served, "constant")
    again = chosen_part.skill(served, "constant")[0]
    document = {
        "kind": task.kind,
        "metric": task.metric,
        "higher_is_better": task.higher_is_better,
        "unit": getattr(task, "unit", ""),
        "constant": _score(task, tests["constant"], tested),
        "skill_ci95": list(skill),
        # One interval would call one worthless target in forty predictable; two independent ones rarely do.
        "predictable": None if np.isnan(skill[0]) else skill[0] > 0 and not again <= 0,
        "single_task": _score(task, tests[own], tested),
        "motet": _score(task, tests[served], tested),
        "gain_percent": gain.gain,
        "ci95": [gain.low, gain.high],
        "served_by": served,
        "candidates": {name: _candidate(task, tests[name], tested) for name in raw},
        "guard": {"own": own, "margin_percent": rules.margin, "gain_percent": guard.gain,
                  "ci95": [guard.low, guard.high], "verdict": verdict},
    }  # fmt: skip
    if served == "blend":
        document["shares"] = shares["blend"]
    if len(tested):
        document |= _calibration_part(task, raw[served][num_choose:], tests[served], tested)
        document |= _interval_part(bounds, tests[served], tested, rules.level)
    return Outcome(task, served, shares[served], calibrations[served], bounds, plain(document))


def _blend(
    task: Task, raw: dict[str, np.ndarray], chosen: np.ndarray, halves: np.ndarray
) -> tuple[dict[str, float], np.ndarray]:
    """The blend's shares, and its estimates: of choose rows under shares that these rows did not choose."""
    choices = {name: part[: len(chosen)] for name, part in raw.items()}
    shares = fit_blend(task, choices, chosen)
    rest = mixed({name: part[len(chosen) :] for name, part in raw.items()}, shares)
    return shares, np.concatenate([cross_fitted(task, choices, chosen, halves), rest])


def _calibration_part(task: Task, raw: np.ndarray, estimates: np.ndarray, targets: np.ndarray) -> dict[str, Any]:
    """How far probabilities were off before and after calibration; nothing for a number."""
    if task.kind in NUMBERS:
        return {}
    curve = calibration_curve(task, estimates, targets)
    before, after = (calibration_error(task, part, targets) for part in (raw, estimates))
    return {"calibration": {"curve": curve, "error_before": before, "error_after": after}}


def _interval_part(bounds: Interval | None, estimates: np.ndarray, targets: np.ndarray, level: float) -> dict[str, Any]:
    """How many test rows the intervals cover, and how wide they are; nothing for a task without them."""
    if bounds is None:
        return {}
    low, high = bounds.bounds(estimates)
    inside = (targets >= low) & (targets <= high)
    return {"interval": {"level": level, "coverage": float(inside.mean()), "mean_width": float((high - low).mean())}}


def _candidate(task: Task, estimates: np.ndarray, targets: np.ndarray) -> dict[str, Any]:
    return {
        "score": _score(task, estimates, targets),
        "metrics": task.metrics(estimates, targets) if len(targets) else {},
    }


def _score(task: Task, estimates: np.ndarray, targets: np.ndarray) -> float | None:
    return float(task.score(estimates, targets)[0]) if len(targets) else None


def plain(value: Any) -> Any:
    """JSON data: numpy numbers as Python's, tuples as lists, and null for what is not finite."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(item) for item in value]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (float, np.floating)):
        return round(float(value), 6) if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


def metrics_document(
    prepared: Prepared, found: Candidates, outcomes: list[Outcome], total_seconds: float
) -> dict[str, Any]:
    """The whole of `metrics.json`."""
    gains = [outcome.document["gain_percent"] for outcome in outcomes]
    known = [gain for gain in gains if gain is not None]
    parts = {name: getattr(prepared.split, name) for name in ("train", "stop", "choose", "test")}
    labelled = {
        task.name: {name: int(prepared.targets(task, rows)[1].sum()) for name, rows in parts.items()}
        for task in prepared.tasks
    }
    return plain({
        "format": 1,
        "tasks": {outcome.task.name: outcome.document for outcome in outcomes},
        "delta_m_percent": sum(known) / len(known) if known else None,
        "rows": {name: len(rows) for name, rows in parts.items()} | {"labelled": labelled},
        "seconds": {name: cost.seconds for name, cost in found.costs.items()} | {"total": total_seconds},
        "compute": {name: asdict(cost) for name, cost in found.costs.items()},
    })  # fmt: skip
