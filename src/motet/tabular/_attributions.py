"""How much each feature moves each target's answers: Shapley values, by LightGBM's own arithmetic or by sampling."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch

from motet.tabular._alike import alike, number_owners
from motet.tabular._labelled import Serving
from motet.tabular._prepared import join
from motet.tabular._served import Served
from motet.tasks import Quantile

PAIRS = 2  # of permutations a row, each with the same one backwards
SCHEMA = {
    "target": pl.String, "feature": pl.String, "mean_shap": pl.Float64, "share": pl.Float64, "unit": pl.String,
    "method": pl.String, "columns": pl.List(pl.String),
}  # fmt: skip


@dataclass(frozen=True)
class Shapley:
    """One target's Shapley values: for each row, `base` and the values of all features add up to `answer`.

    Args:
        features: G groups of columns; those that say the same are one.
        values: (N, G, K), K numbers an answer.
        base: (N, K), what is said where nothing is known of the row.
        answer: (N, K).
        unit: `estimate`, in the target's unit or as a probability, or `score`, before the link of boosted trees.
        method: `tree`, exact for the trees that serve, or `sampled`.
    """

    features: tuple[tuple[str, ...], ...]
    values: np.ndarray
    base: np.ndarray
    answer: np.ndarray
    unit: str
    method: str


def mean_attributions(found: dict[str, Shapley]) -> pl.DataFrame:
    """A row for each target and feature, the largest mean absolute Shapley value first.

    Several numbers an answer, such as classes, count by their mean.
    """
    rows = []
    for name, part in found.items():
        size = np.abs(part.values).mean(axis=(0, 2)) if len(part.values) else np.zeros(len(part.features))
        total = float(size.sum())
        for place in np.argsort(-size, kind="stable"):
            columns, value = list(part.features[place]), float(size[place])
            rows.append((name, " + ".join(columns), value, value / total if total > 0 else None, part.unit, part.method,
                         columns))  # fmt: skip
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def drawn(frame: pl.DataFrame, most: int, seed: int) -> pl.DataFrame:
    """The rows, or as many of them drawn at random, in the table's order."""
    if frame.height <= most:
        return frame
    return frame[np.sort(np.random.default_rng([seed, 5]).choice(frame.height, most, replace=False))]


def shapley(served: Serving, frame: pl.DataFrame, names: Sequence[str], *, seed: int) -> dict[str, Shapley]:
    """Each asked-for target's Shapley values for the rows of a table.

    A target that one LightGBM serves gets TreeSHAP as LightGBM computes it, exact, in its scores, with the branches as
    often taken as by these rows. Any other is sampled: a row's features replace those of another row of the table one
    after the other, and each is given what the answer moved by, φ_j = mean over permutations of
    f(x before and at j, z after) − f(x before j, z from j on).

    Args:
        served: the model.
        frame: rows; each is also what others are compared with.
        names: targets.
        seed: of the permutations and of the rows to compare with.

    Cost: (features + 1) × 4 predictions of the rows for what is sampled; TreeSHAP's own for trees.

    Source: Lundberg, Erion et al., From local explanations to global understanding with explainable AI for trees,
        Nature Machine Intelligence 2020 (TreeSHAP); Štrumbelj and Kononenko, Explaining prediction models and
        individual predictions with feature contributions, 2014, algorithm 1, sampled. Departure: a permutation is
        followed by itself backwards, as in the shap package, which halves the noise of additive parts.
    """
    groups = tuple(alike(served.encoder, served.encoder.transform(frame)))
    exact = [name for name in names if isinstance(served, Served) and _is_one_tree_model(served, name)]
    sampled = [name for name in names if name not in exact]
    found = {name: _tree_shap(served, frame, name, groups) for name in exact if isinstance(served, Served)}
    return {**found, **(_sampled(served, frame, sampled, groups, seed) if sampled else {})}


def _is_one_tree_model(served: Served, name: str) -> bool:
    answer = served.answers[name]
    alone = dict(answer.shares) == {"own_lightgbm": 1.0} and not served.folds
    return alone and not isinstance(answer.task, Quantile)  # its levels are put into order afterwards


def _tree_shap(served: Served, frame: pl.DataFrame, name: str, groups: tuple[tuple[str, ...], ...]) -> Shapley:
    matrix = join(served.encoder.transform(frame))
    parts_NFK, base_NK = served.trees[name].contributions(matrix, threads=torch.get_num_threads())
    owners = np.array([*number_owners(served.encoder), *served.encoder.category_names])
    values = np.stack([parts_NFK[:, np.isin(owners, columns)].sum(axis=1) for columns in groups], axis=1)
    return Shapley(groups, values, base_NK, served.trees[name].scores(matrix), "score", "tree")


def _sampled(
    served: Serving, frame: pl.DataFrame, names: Sequence[str], groups: tuple[tuple[str, ...], ...], seed: int
) -> dict[str, Shapley]:
    frame = frame.select(served.encoder.columns)
    draw = np.random.default_rng([seed, 19])
    count, num_groups = frame.height, len(groups)
    answers = _wide(served, frame, names)
    values = {name: np.zeros((count, num_groups, answers[name].shape[1])) for name in names}
    base = {name: np.zeros_like(answers[name]) for name in names}
    for _ in range(PAIRS):
        order = np.argsort(draw.random((count, num_groups)), axis=1)  # the group at each step of a row
        for turn in (order, order[:, ::-1]):
            others = frame[draw.permutation(count)]
            before = _wide(served, others, names)
            for name in names:
                base[name] += before[name] / (2 * PAIRS)
            steps = np.argsort(turn, axis=1)  # the step at which each group comes
            for step in range(num_groups):
                after = answers if step == num_groups - 1 else _wide(
                    served, _partly(frame, others, groups, steps <= step), names)  # fmt: skip
                for name in names:
                    moved = (after[name] - before[name]) / (2 * PAIRS)
                    values[name][np.arange(count), turn[:, step]] += moved
                before = after
    return {name: Shapley(groups, values[name], base[name], answers[name], "estimate", "sampled") for name in names}


def _partly(
    frame: pl.DataFrame, others: pl.DataFrame, groups: tuple[tuple[str, ...], ...], own_NG: np.ndarray
) -> pl.DataFrame:
    """The rows with the columns of some groups, and other rows' for the rest."""
    columns = [
        pl.select(pl.when(pl.Series(own_NG[:, place])).then(frame[name]).otherwise(others[name]).alias(name))
        for place, group in enumerate(groups)
        for name in group
    ]
    return pl.concat(columns, how="horizontal").select(frame.columns)


def _wide(served: Serving, frame: pl.DataFrame, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Estimates as (N, K) float64."""
    found = served.estimate(frame, names)
    return {name: np.asarray(found[name], dtype=np.float64).reshape(frame.height, -1) for name in names}
