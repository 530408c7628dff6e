"""What each feature is worth to each target of a served model."""

import numpy as np
import polars as pl

from motet.tabular._alike import alike
from motet.tabular._dependence import row_errors
from motet.tabular._guard import draw_weights
from motet.tabular._labelled import Labelled, Serving, interval_of
from motet.tasks import Task

RESAMPLES = 200
SCHEMA = {
    "target": pl.String, "metric": pl.String, "feature": pl.String, "drop": pl.Float64, "low": pl.Float64,
    "high": pl.Float64, "share": pl.Float64, "columns": pl.List(pl.String),
}  # fmt: skip


def feature_effects(served: Serving, labelled: Labelled, *, repeats: int, seed: int) -> pl.DataFrame:
    """How much worse each target's main metric gets when a feature's values are dealt to other rows.

    drop = score(x) − mean over repeats of score(x with the feature shuffled), turned so that positive means that the
    model needs the feature, in the metric's own unit. Features that say the same are shuffled together by one
    permutation (`alike`), and a date with all its parts.

    Args:
        served: the model.
        labelled: rows that it has not seen; a row without a target's label does not count for it.
        repeats: permutations a feature, at least 1.
        seed: of the permutations and resamples.

    Returns:
        a row for each target and feature, the largest drop first: its 95% interval `low` and `high`, from resamples of
        the rows and of the repeats together, and `share`, its part of the target's positive drops. Rows of a series
        are drawn in blocks, as long as what the feature is worth stays alike from row to row.

    Cost: features × repeats + 1 predictions of all the rows, and as many times 201 evaluations of the metric a target.

    Source: Breiman, Random Forests, 2001, and Fisher, Rudin and Dominici, JMLR 2019, eq. 3, whose model reliance is a
        ratio where this is a difference.
    """
    frame, names = labelled.frame, list(labelled.tasks)
    groups = alike(served.encoder, served.encoder.transform(frame))
    frame = frame.select(served.encoder.columns)
    before = served.estimate(frame, names)
    found = {name: _Needs(labelled, name, before[name], seed) for name in names}
    for number, columns in enumerate(groups):
        draw = np.random.default_rng([seed, 11, number])
        donors = [draw.permutation(frame.height) for _ in range(repeats)]
        after = [served.estimate(shuffled(frame, columns, order), names) for order in donors]
        for name, needs in found.items():
            needs.add(columns, [estimates[name] for estimates in after], donors)
    rows = [row for needs in found.values() for row in needs.rows()]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row").with_columns(
        pl.col("drop", "low", "high", "share").fill_nan(None)
    )


def shuffled(frame: pl.DataFrame, columns: tuple[str, ...], donors: np.ndarray) -> pl.DataFrame:
    """The frame with these columns' values taken from other rows, all of them by one permutation."""
    return frame.with_columns(frame.select(columns)[donors])


class _Needs:
    """What one target loses with each feature."""

    def __init__(self, labelled: Labelled, name: str, before: np.ndarray, seed: int) -> None:
        self.labelled, self.task = labelled, labelled.tasks[name]
        self.places = np.flatnonzero(labelled.present[name])
        self.targets = labelled.targets[name][self.places]
        self.seed, self.draw = seed, np.random.default_rng([seed, 17])
        self.before = before[self.places]
        self.errors = row_errors(self.task, self.before, self.targets)
        self.found: list[tuple[tuple[str, ...], float, float, float]] = []
        self._resampled: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}

    def add(self, columns: tuple[str, ...], after: list[np.ndarray], donors: list[np.ndarray]) -> None:
        """Measures one feature by the estimates of each repeat, and the rows whose values each row had in it."""
        shuffled = [estimates[self.places] for estimates in after]
        together = self._together(shuffled, donors)
        weights, before = self._resamples(together)
        sign = 1.0 if self.task.higher_is_better else -1.0
        drops = []
        for estimates, order in zip(shuffled, donors, strict=True):
            pairs = weights if together is None else weights * self._spread(weights)[:, order[self.places]]
            drops.append(sign * (before - scores(self.task, estimates, self.targets, pairs)))
        # Which permutations were drawn is chance too: a resample of the rows comes with one of the repeats.
        picks = self.draw.integers(len(drops), size=(len(drops), RESAMPLES))
        draws = np.take_along_axis(np.stack(drops)[:, 1:], picks, axis=0).mean(axis=0)
        drop = float(np.mean([one[0] for one in drops]))
        self.found.append((columns, drop, *interval_of(draws, len(self.places), together)))

    def rows(self) -> list[tuple[object, ...]]:
        """The features by their drop, the largest first; NaN, where the metric is not defined, last."""
        total = sum(drop for _, drop, _, _ in self.found if drop > 0)
        ordered = sorted(self.found, key=lambda found: -found[1] if np.isfinite(found[1]) else np.inf)
        return [
            (self.task.name, self.task.metric, " + ".join(columns), drop, low, high,
             max(drop, 0.0) / total if total > 0 else None, list(columns))
            for columns, drop, low, high in ordered
        ]  # fmt: skip

    def _together(self, shuffled: list[np.ndarray], donors: list[np.ndarray]) -> np.ndarray | None:
        """What is drawn as one: as long as what a row adds to the drop stays alike, as itself and as a donor."""
        worse = [row_errors(self.task, estimates, self.targets) - self.errors for estimates in shuffled]
        added = np.zeros(len(self.labelled.frame))
        for one, order in zip(worse, donors, strict=True):
            added[self.places] += one
            added[order[self.places]] += one
        return self.labelled.together(self.places, added[self.places])

    def _spread(self, weights: np.ndarray) -> np.ndarray:
        """The resamples over all rows: a donor without this label is drawn once.

        Rows that are drawn together are donors together too, so that a pair counts as often as both are drawn. Of rows
        that are drawn alone, the pairs' own chance is as large as what this adds.
        """
        found = np.ones((len(weights), self.labelled.frame.height), dtype=weights.dtype)
        found[:, self.places] = weights
        return found

    def _resamples(self, together: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Resamples, and the score before of all rows and of each; drawn once for each way of drawing together."""
        key = b"" if together is None else together.tobytes()
        if key not in self._resampled:
            weights = draw_weights(len(self.places), resamples=RESAMPLES, seed=self.seed, groups=together)
            self._resampled[key] = weights, scores(self.task, self.before, self.targets, weights)
        return self._resampled[key]


def scores(task: Task, estimates: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """A task's score of all rows, and after it that of each resample (R, N): (1 + R,), NaN where there are no rows."""
    if not len(targets):
        return np.full(1 + len(weights), np.nan)
    return np.concatenate([task.score(estimates, targets), task.score(estimates, targets, weights)])
