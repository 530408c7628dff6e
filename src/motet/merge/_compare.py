"""The guard of a merge: the merged model beside each expert on that expert's own task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from motet._errors import RequestError
from motet._intervals import tail
from motet.merge._dtypes import Array

FEWEST_ROWS = 20
_BLOCK = 1 << 21  # rows times resamples that are drawn at once

# A score for each row, of which more is better: right or wrong, minus a loss.
RowScores: TypeAlias = Array | Sequence[float]
Verdict: TypeAlias = Literal["worse", "not worse", "not proven"]


@dataclass(frozen=True)
class ExpertComparison:
    """How a merged model does on one task beside the expert of that task, on the same rows.

    Args:
        task: its name.
        rows: how many rows both were scored on.
        expert: the expert's mean score.
        merged: the merged model's mean score.
        difference: merged minus expert; below zero the merge has lost.
        low: lower end of the 95% interval of the difference; NaN where there are too few rows.
        high: upper end.
        margin: loss that counts as none, in the score's unit.
    """

    task: str
    rows: int
    expert: float
    merged: float
    difference: float
    low: float
    high: float
    margin: float

    @property
    def verdict(self) -> Verdict:
        """What the rows prove: `worse` if the interval lies below zero, `not worse` if it keeps to the margin."""
        if self.high < 0:
            return "worse"
        return "not worse" if self.low >= -self.margin else "not proven"

    def document(self) -> dict[str, Any]:
        """The comparison as a JSON document holds it."""
        ends = [self.low, self.high] if np.isfinite(self.low) else None
        return {
            "task": self.task, "rows": self.rows, "expert_score": self.expert, "merged_score": self.merged,
            "difference": self.difference, "ci95": ends, "margin": self.margin, "verdict": self.verdict,
        }  # fmt: skip


def compare_with_experts(
    merged: Mapping[str, RowScores],
    experts: Mapping[str, RowScores],
    *,
    margin: float = 0.5,
    resamples: int = 2000,
    seed: int = 0,
) -> list[ExpertComparison]:
    """Says for each task whether a merged model is worse than the task's own expert, and by how much.

    Choose it once a merge is made, on rows that neither training nor the choice of the merge has seen. Both models are
    scored on the same rows, and rows are resampled in pairs, so that what is hard for both does not widen the interval.

        Δ = Σ_n w_n (m_n − e_n) / Σ_n w_n,   w_n from Poisson(1) in each resample

    Args:
        merged: scores (N,) of the merged model by task, more is better, such as 1.0 where right and 0.0 where wrong.
        experts: scores (N,) of each task's expert on the same rows in the same order.
        margin: percent of the expert's mean score whose loss counts as none, 0 or above.
        resamples: of the bootstrap.
        seed: of the resamples.

    Returns:
        One comparison a task, in the order of `experts`. Every interval is one of 95% by itself: of forty tasks that
        lost nothing, one is expected to be called worse.

    Raises:
        RequestError: other tasks, other numbers of rows, or scores that are no finite numbers.

    Cost: resamples · N random numbers a task, a few MB at once.

    Source: the Poisson bootstrap; the percentiles are moved out for few rows as Hesterberg (What Teachers Should Know
        about the Bootstrap, 2015) expands them.
    """
    if not margin >= 0 or resamples < 100:
        message = f"margin={margin} and resamples={resamples} arrived; a margin of 0 or more and at least 100 resamples"
        raise RequestError(message + " were expected. The defaults are 0.5 and 2000.")
    if set(merged) != set(experts) or not experts:
        message = f"Scores of tasks {sorted(merged)} arrived for the merged model and {sorted(experts)} for the experts"
        raise RequestError(message + "; the same tasks were expected, at least one. Score both on every task.")
    return [
        _compared(task, as_rows(merged[task], task), as_rows(scores, task), margin, resamples, seed)
        for task, scores in experts.items()
    ]


def as_rows(scores: Any, task: str) -> Array:
    """(N,) float64 scores of a task's rows.

    Raises:
        RequestError: they are not one finite number a row.
    """
    try:
        found = np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError):
        found = np.full((1, 1), np.nan)
    if found.ndim != 1 or not found.size or not np.isfinite(found).all():
        shown = f"shape {found.shape}" if found.ndim != 1 or not found.size else "NaN or infinity among them"
        message = f"Task '{task}' got row scores of {shown}; one finite number for each row, (N,), was expected."
        raise RequestError(message + " Return a list or an array with a score for each row.")
    return found


def _compared(task: str, merged: Array, expert: Array, margin: float, resamples: int, seed: int) -> ExpertComparison:
    if merged.shape != expert.shape:
        message = f"Task '{task}' was scored on {merged.size} rows with the merged model and {expert.size} with its"
        raise RequestError(message + " expert; the same rows in the same order were expected. Fix the rows' choice.")
    difference = merged - expert
    low, high = _interval(difference, resamples, seed)
    mean = float(expert.mean())
    return ExpertComparison(
        task, expert.size, mean, float(merged.mean()), float(difference.mean()), low, high, margin / 100 * abs(mean)
    )


def _interval(values: Array, resamples: int, seed: int) -> tuple[float, float]:
    """The 95% interval of the mean of the values."""
    if values.size < FEWEST_ROWS:
        return float("nan"), float("nan")
    draw = np.random.default_rng([seed, values.size])
    means = []
    length = max(1, _BLOCK // values.size)
    for start in range(0, resamples, length):
        weights = draw.poisson(1.0, (min(length, resamples - start), values.size))
        means.append(weights @ values / weights.sum(axis=1))
    end = tail(values.size)
    low, high = np.quantile(np.concatenate(means), [end, 1.0 - end])
    return float(low), float(high)
