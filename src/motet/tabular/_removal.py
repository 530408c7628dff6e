"""Whether a ranking of features may be believed: take away the best and the worst, train again, and look."""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from motet.data import FeatureEncoder
from motet.tabular._alike import number_owners
from motet.tabular._boosting import Boosting, BoostingRows
from motet.tabular._dependence import row_errors
from motet.tabular._effects import RESAMPLES, scores
from motet.tabular._guard import draw_weights
from motet.tabular._labelled import Labelled, interval_of
from motet.tabular._prepared import join
from motet.train import Clock

QUARTER = 0.25
CUTS = (0.5, 0.65)  # train up to the first, stop up to the second, score from there on
FEWEST = 100  # labelled rows
SCHEMA = {
    "target": pl.String, "metric": pl.String, "rows": pl.Int64, "all": pl.Float64, "without_most": pl.Float64,
    "without_least": pl.Float64, "difference": pl.Float64, "low": pl.Float64, "high": pl.Float64,
    "verdict": pl.String, "most": pl.List(pl.String), "least": pl.List(pl.String),
}  # fmt: skip


def check_effects(
    encoder: FeatureEncoder, labelled: Labelled, effects: pl.DataFrame, *, seed: int, threads: int
) -> pl.DataFrame:
    """Trains each target's trees again without its most and without its least important quarter of the features.

    difference = score without the least − score without the most, turned so that positive supports the ranking. Its
    95% interval is a paired bootstrap over the scored rows. The verdict is `supported` if the interval lies above
    zero, `contradicted` if below, else `not supported`: then taking away what the ranking calls useless hurts about as
    much as taking away what it calls important, and the ranking may not be believed for this target.

    Args:
        encoder: of the features.
        labelled: rows to train on (half), to stop on (15%) and to score (the rest); groups stay together.
        effects: as `feature_effects` gives them, or `mean_attributions`: the largest first.
        seed: of the parts, the trees and the resamples.
        threads: processor threads.

    Returns:
        a row for each target; `all` is the score with every feature. No scores, and the verdict `too few rows` or
        `too few features`, below 100 labelled rows or two features.

    Cost: three trainings of a target's LightGBM on half of the rows.

    Source: Shah, Jain and Netrapalli, Do Input Gradients Highlight Discriminative Features?, NeurIPS 2021, section 3
        (DiffROAR). There each row keeps its own best or worst features and the others are masked; here a ranking
        counts for all rows, features are left out whole, and the rest, three quarters, is kept.
    """
    matrix = join(encoder.transform(labelled.frame))
    owners = [*number_owners(encoder), *encoder.category_names]
    size = "drop" if "drop" in effects.columns else "mean_shap"
    rows = []
    for name in labelled.tasks:
        ranked = effects.filter(pl.col("target") == name, pl.col(size).is_not_null())
        trial = _Trial(labelled, name, matrix, owners, len(encoder.category_names), seed, threads)
        rows.append(_checked(trial, ranked["columns"].to_list()))
    return pl.DataFrame(rows, schema=SCHEMA).with_columns(pl.col(pl.Float64).fill_nan(None))


def _checked(trial: "_Trial", ranked: Sequence[Sequence[str]]) -> Mapping[str, object]:
    found: dict[str, object] = {"target": trial.task.name, "metric": trial.task.metric, "rows": len(trial.places)}
    if len(trial.places) < FEWEST:
        return found | {"verdict": "too few rows"}
    if len(ranked) < 2:
        return found | {"verdict": "too few features"}
    count = max(1, round(QUARTER * len(ranked)))
    most, least = ([name for group in part for name in group] for part in (ranked[:count], ranked[-count:]))
    everything, without_most, without_least, together = trial.scores(((), most, least))
    sign = 1.0 if trial.task.higher_is_better else -1.0
    difference = sign * (without_least - without_most)
    low, high = interval_of(difference[1:], len(trial.scored), together)
    verdict = "supported" if low > 0 else "contradicted" if high < 0 else "not supported"
    return found | {
        "all": everything[0], "without_most": without_most[0], "without_least": without_least[0],
        "difference": difference[0], "low": low, "high": high, "verdict": verdict, "most": most, "least": least,
    }  # fmt: skip


class _Trial:
    """One target's parts of the rows, and trees on any of the features."""

    def __init__(
        self, labelled: Labelled, name: str, matrix: np.ndarray, owners: Sequence[str], num_categories: int, seed: int,
        threads: int,
    ) -> None:  # fmt: skip
        self.labelled, self.task, self.matrix, self.owners = labelled, labelled.tasks[name], matrix, np.array(owners)
        self.targets, self.num_categories, self.seed, self.threads = (
            labelled.targets[name],
            num_categories,
            seed,
            threads,
        )
        self.places = np.flatnonzero(labelled.present[name])
        self.train, self.stop, self.scored = parts(self.places, labelled.groups, seed)

    def scores(self, gone: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
        """Scores (1 + R,) of the scored rows and of their resamples by trees that lack each of three lists of columns.

        Also what the resamples drew together: rows of a series, as long as the last two differ alike.
        """
        estimates = [self._estimates(columns) for columns in gone]
        targets = self.targets[self.scored]
        most, least = (row_errors(self.task, part, targets) for part in estimates[1:])
        together = self.labelled.together(self.scored, most - least)
        weights = draw_weights(len(self.scored), resamples=RESAMPLES, seed=self.seed, groups=together)
        everything, without_most, without_least = (scores(self.task, part, targets, weights) for part in estimates)
        return everything, without_most, without_least, together

    def _estimates(self, gone: Sequence[str]) -> np.ndarray:
        """Estimates of the scored rows by trees that lack these columns."""
        kept = np.flatnonzero(~np.isin(self.owners, gone))
        categories = int((kept >= len(self.owners) - self.num_categories).sum())
        train, stop = (
            BoostingRows(self.matrix[np.ix_(rows, kept)], self.targets[rows], categories)
            for rows in (self.train, self.stop)
        )
        trees, _ = Boosting.fit(self.task, train, stop, seed=self.seed, clock=Clock(None), threads=self.threads)
        return trees.estimate(self.matrix[np.ix_(self.scored, kept)], threads=self.threads)


def parts(places: np.ndarray, groups: np.ndarray | None, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The places (N,) dealt at random to train, stop and score; a group's rows stay together."""
    codes = np.arange(len(places)) if groups is None else np.unique(groups[places], return_inverse=True)[1]
    turn = np.random.default_rng([seed, 13]).permutation(int(codes.max(initial=-1)) + 1)[codes]
    part = np.searchsorted(np.array(CUTS) * len(np.unique(codes)), turn, side="right")
    train, stop, scored = (places[part == number] for number in range(3))
    return train, stop, scored
