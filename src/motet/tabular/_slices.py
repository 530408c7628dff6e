"""How good a served model is on each part of a table."""

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import polars as pl

from motet._errors import RequestError, suggest
from motet.tabular._dependence import row_errors
from motet.tabular._effects import scores
from motet.tabular._guard import FEWEST_ROWS, draw_weights
from motet.tabular._labelled import Labelled, Serving, interval_of

FEW_VALUES = 12  # a number with more is cut into bins
MOST_LEVELS = 20
MISSING, OTHERS = "(missing)", "(other levels)"
SCHEMA = {
    "target": pl.String, "metric": pl.String, "slice": pl.String, "rows": pl.Int64, "score": pl.Float64,
    "low": pl.Float64, "high": pl.Float64, "worse_by": pl.Float64, "worst": pl.Boolean, "proven": pl.Boolean,
}  # fmt: skip


def slice_scores(served: Serving, labelled: Labelled, by: str, *, bins: int, resamples: int, seed: int) -> pl.DataFrame:
    """The main metric of each target on each slice of the rows.

    A slice is a level of the column, the 20 most frequent ones and the others together, or a bin of a number or date
    that has more than 12 values, with about the same number of rows each. Missing values are a slice.

    Args:
        served: the model.
        labelled: rows that it has not seen.
        by: a column of the table; a feature or not.
        bins: of a number.
        resamples: R of the intervals.
        seed: of the resamples.

    Returns:
        a row for each target and slice: labelled `rows`, the `score` with its 95% interval, and `worse_by`, how much
        worse it is than that of all other rows, in the metric's unit. `worst` marks a target's worst slice of 20 rows
        or more. It would be found among slices that are all alike too, so `proven` says whether it is worse than the
        others by more than the worst of as many slices is by chance (Bonferroni, one-sided 5% over all slices).

    Raises:
        RequestError: the table has no such column, or it is nested.
    """
    codes, names = slices(labelled.frame, by, bins)
    return scores_of_slices(served, labelled, codes, names, resamples=resamples, seed=seed)


def scores_of_slices(
    served: Serving, labelled: Labelled, codes: np.ndarray, names: Sequence[str], *, resamples: int, seed: int
) -> pl.DataFrame:
    """The same for slices that are given: the code (N,) of each row's, and their names."""
    answers = served.estimate(labelled.frame, list(labelled.tasks))
    rows = []
    for name, estimates in answers.items():
        sliced = _Sliced(labelled, name, estimates, resamples, seed)
        found = [sliced.score(codes == code) for code in range(len(names))]
        level = NormalDist().inv_cdf(1.0 - 0.05 / max(1, sum(np.isfinite(one[4]) for one in found)))
        gaps = [one[4] if one[0] >= FEWEST_ROWS and np.isfinite(one[4]) else -np.inf for one in found]
        place = int(np.argmax(gaps)) if len(gaps) > 1 and max(gaps) > 0 else -1
        for number, (shown, (*numbers, spread)) in enumerate(zip(names, found, strict=True)):
            proven = bool(numbers[4] > level * spread) if number == place else False
            rows.append((name, labelled.tasks[name].metric, shown, *numbers, number == place, proven))
    return pl.DataFrame(rows, schema=SCHEMA, orient="row").with_columns(pl.col(pl.Float64).fill_nan(None))


class _Sliced:
    """One target's labelled rows, and their resamples; rows of a series are drawn in blocks."""

    def __init__(self, labelled: Labelled, name: str, estimates: np.ndarray, resamples: int, seed: int) -> None:
        self.task, self.places = labelled.tasks[name], np.flatnonzero(labelled.present[name])
        self.targets, self.estimates = labelled.targets[name][self.places], estimates[self.places]
        self.together = labelled.together(self.places, row_errors(self.task, self.estimates, self.targets))
        self.weights = draw_weights(len(self.places), resamples=resamples, seed=seed, groups=self.together)

    def score(self, chosen: np.ndarray) -> tuple[int, float, float, float, float, float]:
        """Rows, score, the ends of its interval, how much worse it is than the others, and the deviation of that."""
        inside = chosen[self.places]
        ours, theirs = (
            scores(self.task, self.estimates[mask], self.targets[mask], self.weights[:, mask])
            for mask in (inside, ~inside)
        )
        worse = (theirs - ours) * (1.0 if self.task.higher_is_better else -1.0)
        known = worse[1:][np.isfinite(worse[1:])]
        spread = float(known.std()) if len(known) > 1 else np.nan
        rows, together = int(inside.sum()), None if self.together is None else self.together[inside]
        return rows, float(ours[0]), *interval_of(ours[1:], rows, together), float(worse[0]), spread


def slices(frame: pl.DataFrame, by: str, bins: int) -> tuple[np.ndarray, list[str]]:
    """The slice of each row (N,), and the slices' names.

    Raises:
        RequestError: the table has no such column, or it is nested.
    """
    if by not in frame.columns:
        message = f"The table has no column '{by}' to slice by.{suggest(by, frame.columns)} Check the name."
        raise RequestError(message)
    values = frame.get_column(by)
    if values.dtype.is_nested() or values.dtype in (pl.Binary, pl.Object):
        message = f"Column '{by}' holds {values.dtype}; slices need plain values. Slice by another column."
        raise RequestError(message)
    if values.dtype.is_float():
        values = values.fill_nan(None)
    if (values.dtype.is_numeric() or values.dtype.is_temporal()) and values.drop_nulls().n_unique() > FEW_VALUES:
        return _bins(values, bins)
    return _levels(values)


def _bins(values: pl.Series, bins: int) -> tuple[np.ndarray, list[str]]:
    known = values.drop_nulls().sort()
    starts = known.gather(np.arange(bins) * known.len() // bins).unique().sort()  # a value falls into one bin only
    codes = np.full(values.len(), starts.len(), dtype=np.int64)
    there = values.is_not_null().to_numpy()
    physical = values.filter(pl.Series(there)).to_physical().to_numpy()
    codes[there] = np.searchsorted(starts.to_physical().to_numpy(), physical, side="right") - 1
    ends = [*(f"{shown(end)})" for end in starts[1:]), f"{shown(known[-1])}]"]
    names = [f"[{shown(start)}, {end}" for start, end in zip(starts, ends, strict=True)]
    return codes, names if there.all() else [*names, MISSING]


def _levels(values: pl.Series) -> tuple[np.ndarray, list[str]]:
    texts = values.cast(pl.String)
    counts = texts.drop_nulls().value_counts().sort([pl.col("count"), pl.col(texts.name)], descending=[True, False])
    names = counts[texts.name].to_list()
    kept = sorted(names[:MOST_LEVELS])
    code = {name: number for number, name in enumerate(kept)}
    kept += [OTHERS] if len(names) > MOST_LEVELS else []
    missing = len(kept)
    codes = np.array([missing if text is None else code.get(text, MOST_LEVELS) for text in texts.to_list()])
    return codes, [*kept, MISSING] if texts.null_count() else kept


def shown(value: object) -> str:
    """An end of a bin as a person reads it."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
