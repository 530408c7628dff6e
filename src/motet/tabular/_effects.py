"""What each feature is worth to each target of a served model."""

import numpy as np
import polars as pl

from motet.tabular._alike import alike
from motet.tabular._labelled import Labelled
from motet.tabular._served import Served
from motet.tasks import Task

RESAMPLES = 200
SCHEMA = {
    "target": pl.String, "metric": pl.String, "feature": pl.String, "drop": pl.Float64, "low": pl.Float64,
    "high": pl.Float64, "share": pl.Float64, "columns": pl.List(pl.String),
}  # fmt: skip


def feature_effects(served: Served, labelled: Labelled, *, repeats: int, seed: int) -> pl.DataFrame:
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
        the rows and of the repeats together, and `share`, its part of the target's positive drops.

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
        after = [served.estimate(shuffled(frame, columns, draw), names) for _ in range(repeats)]
        for name, needs in found.items():
            needs.add(columns, [estimates[name] for estimates in after])
    rows = [row for needs in found.values() for row in needs.rows()]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row").with_columns(
        pl.col("drop", "low", "high", "share").fill_nan(None)
    )


def shuffled(frame: pl.DataFrame, columns: tuple[str, ...], draw: np.random.Generator) -> pl.DataFrame:
    """The frame with these columns' values dealt to other rows, all of them by one permutation."""
    return frame.with_columns(frame.select(columns)[draw.permutation(frame.height)])


class _Needs:
    """What one target loses with each feature."""

    def __init__(self, labelled: Labelled, name: str, before: np.ndarray, seed: int) -> None:
        self.labelled, self.task = labelled, labelled.tasks[name]
        self.places = np.flatnonzero(labelled.present[name])
        self.targets = labelled.targets[name][self.places]
        self.weights = labelled.weights(self.places, resamples=RESAMPLES, seed=seed)
        self.draw = np.random.default_rng([seed, 17])
        self.before = self._scores(before)
        self.found: list[tuple[tuple[str, ...], float, float, float]] = []

    def add(self, columns: tuple[str, ...], after: list[np.ndarray]) -> None:
        """Measures one feature by the estimates of each repeat."""
        sign = 1.0 if self.task.higher_is_better else -1.0
        drops = sign * (self.before - np.stack([self._scores(estimates) for estimates in after]))
        # Which permutations were drawn is chance too: a resample of the rows comes with one of the repeats.
        picks = self.draw.integers(len(drops), size=(len(drops), RESAMPLES))
        draws = np.take_along_axis(drops[:, 1:], picks, axis=0).mean(axis=0)
        self.found.append((columns, float(drops[:, 0].mean()), *self.labelled.interval(draws, self.places)))

    def rows(self) -> list[tuple[object, ...]]:
        """The features by their drop, the largest first; NaN, where the metric is not defined, last."""
        total = sum(drop for _, drop, _, _ in self.found if drop > 0)
        ordered = sorted(self.found, key=lambda found: -found[1] if np.isfinite(found[1]) else np.inf)
        return [
            (self.task.name, self.task.metric, " + ".join(columns), drop, low, high,
             max(drop, 0.0) / total if total > 0 else None, list(columns))
            for columns, drop, low, high in ordered
        ]  # fmt: skip

    def _scores(self, estimates: np.ndarray) -> np.ndarray:
        """The score of all rows, and after it that of each resample, (1 + R,)."""
        return scores(self.task, estimates[self.places], self.targets, self.weights)


def scores(task: Task, estimates: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """A task's score of all rows, and after it that of each resample (R, N): (1 + R,), NaN where there are no rows."""
    if not len(targets):
        return np.full(1 + len(weights), np.nan)
    return np.concatenate([task.score(estimates, targets), task.score(estimates, targets, weights)])
