"""The guard: a paired test that says whether a shared model may serve a task."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from motet._intervals import tail
from motet.tasks import Task

FEWEST_ROWS = 20
FEWEST_DRAWS = 10  # groups, or blocks of a series, from which an interval is worth its name
MOST = 400_000  # rows times columns of estimates that are resampled


@dataclass(frozen=True)
class Comparison:
    """How much better one model is than another on the same rows.

    Args:
        gain: relative change of the task's main metric in percent, positive where the first model is better.
        low: lower end of the 95% interval over resamples of the rows; NaN where there are too few rows.
        high: upper end.
    """

    gain: float
    low: float
    high: float

    def verdict(self, margin: float) -> str:
        """What the comparison proves about the first model.

        `worse`: the whole interval lies below zero. `not worse`: the interval ends above zero and does not reach below
        the margin. `not proven`: anything else, too few rows among it.
        """
        if not np.isfinite([self.gain, self.low, self.high]).all():
            return "not proven"
        if self.high < 0:
            return "worse"
        return "not worse" if self.low >= -margin else "not proven"


def draw_weights(num_rows: int, *, resamples: int, seed: int, groups: np.ndarray | None = None) -> np.ndarray:
    """Row weights (R, N) of bootstrap resamples: how often each row is drawn.

    Each row (or each group of rows that belong together) is drawn a Poisson(1) number of times, which is the bootstrap
    for any but the smallest samples and needs no count to be fixed.

    Args:
        num_rows: N.
        resamples: R.
        seed: of the draw.
        groups: (N,) group of each row; rows of one group are drawn together.
    """
    generator = np.random.default_rng([seed, 7])
    if groups is None:
        return generator.poisson(1.0, size=(resamples, num_rows)).astype(np.uint8)
    _, codes = np.unique(groups, return_inverse=True)
    return generator.poisson(1.0, size=(resamples, codes.max(initial=-1) + 1)).astype(np.uint8)[:, codes]


class HeldOut:
    """Several models' estimates for the same rows of one task; each is scored once, over rows and over resamples.

    Resamples of many rows under many classes cost more than they tell: past `MOST` numbers the intervals come from
    evenly chosen rows, which makes them wider and never narrower. Scores themselves are of all rows.

    Args:
        task: whose main metric counts.
        estimates: (N,) or (N, K) by model.
        targets: (N,) or (N, L), all present.
        weights: (R, N) resamples of the rows.
        draws: how many groups or blocks of rows the resamples drew from; None where they drew single rows.
    """

    def __init__(
        self,
        task: Task,
        estimates: Mapping[str, np.ndarray],
        targets: np.ndarray,
        weights: np.ndarray,
        *,
        draws: int | None = None,
    ) -> None:
        self.task, self.estimates, self.targets, self.weights = task, estimates, targets, weights
        self.num_draws = len(targets) if draws is None else draws
        self.proves_nothing = len(targets) < FEWEST_ROWS or (draws is not None and draws < FEWEST_DRAWS)
        self._scores: dict[str, np.ndarray] = {}
        self._draws: dict[str, np.ndarray] = {}

    def score(self, model: str) -> np.ndarray:
        """The model's score, (1,)."""
        if model not in self._scores:
            self._scores[model] = self.task.score(self.estimates[model], self.targets)
        return self._scores[model]

    def draws(self, model: str) -> np.ndarray:
        """The model's score in each resample, (R,)."""
        if model not in self._draws:
            estimates = self.estimates[model]
            width = estimates.shape[1] if estimates.ndim > 1 else 1
            count = min(len(estimates), max(FEWEST_ROWS, MOST // width))
            rows = np.linspace(0, len(estimates) - 1, count).astype(np.int64)
            self._draws[model] = self.task.score(estimates[rows], self.targets[rows], self.weights[:, rows])
        return self._draws[model]

    def compare(self, first: str, second: str) -> Comparison:
        """How much better the first model is than the second."""
        if len(self.targets) == 0:
            return Comparison(np.nan, np.nan, np.nan)
        gain = float(_gain(self.task, self.score(first), self.score(second))[0])
        if self.proves_nothing:
            return Comparison(gain, np.nan, np.nan)
        return Comparison(gain, *interval(_gain(self.task, self.draws(first), self.draws(second)), self.num_draws))

    def skill(self, model: str, constant: str) -> tuple[float, float]:
        """The interval of where the model lies between the constant (0) and perfection (1)."""
        if self.proves_nothing:
            return float("nan"), float("nan")
        perfect = 1.0 if self.task.higher_is_better else 0.0
        ours, theirs = self.draws(model), self.draws(constant)
        with np.errstate(divide="ignore", invalid="ignore"):
            return interval((ours - theirs) / (perfect - theirs), self.num_draws)


def compare(task: Task, first: np.ndarray, second: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> Comparison:
    """Compares two models' estimates (N,) or (N, K) for the same rows, under resamples (R, N) of them."""
    return HeldOut(task, {"first": first, "second": second}, targets, weights).compare("first", "second")


def interval(values: np.ndarray, num_draws: int | None = None) -> tuple[float, float]:
    """The 95% interval of resampled values; NaN where half of the resamples do not define the metric.

    Args:
        values: (R,) the metric in each resample.
        num_draws: rows, groups or blocks that the resamples drew from: of few, the percentiles alone are too narrow
            and are moved out as far as Student's distribution lies outside the normal one (Hesterberg 2015).
    """
    known = values[np.isfinite(values)]
    if known.size < max(1, values.size // 2):
        return float("nan"), float("nan")
    end = 0.025 if num_draws is None else tail(num_draws)
    low, high = np.quantile(known, [end, 1.0 - end])
    return float(low), float(high)


def _gain(task: Task, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    sign = 1.0 if task.higher_is_better else -1.0
    # A metric at exactly zero has no relative change; both at zero is a gain of zero.
    scale = np.where(second == 0, np.where(first == second, 1.0, np.nan), np.abs(second))
    return 100.0 * sign * (first - second) / scale
