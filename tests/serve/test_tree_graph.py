"""Trees of each kind of task as a graph, against LightGBM."""

import re

import numpy as np
import pytest
from runtime import run

from motet import RequestError
from motet.serve._graph import Graph
from motet.serve._trees import tree_nodes
from motet.tabular._boosting import Boosting, BoostingRows
from motet.tasks import Binary, Count, Multiclass, Multilabel, Ordinal, Quantile, Regression, Task
from motet.train import Clock


def matrix(count: int, seed: int = 0, *, gaps: bool = True) -> np.ndarray:
    """Two numbers, one with gaps, and two categories with levels on both sides of 32."""
    draw = np.random.default_rng(seed)
    found = np.column_stack([draw.normal(size=(count, 2)), draw.integers(0, 4, count), draw.integers(0, 60, count)])
    if gaps:
        found[draw.random(count) < 0.2, 0] = np.nan
    return found.astype(np.float32)


LEVEL = np.nan_to_num(matrix(700)[:, 0]) + matrix(700)[:, 2] + (matrix(700)[:, 3] % 7 > 3)
CASES = [
    (Regression("t", center=0.0, scale=1.0), LEVEL.astype(np.float32)),
    (Binary("t", classes=(False, True)), (LEVEL > 2).astype(np.float32)),
    (Multiclass("t", classes=("a", "b", "c")), np.digitize(LEVEL, [1, 3]).astype(np.int64)),
    (Ordinal("t", classes=(1, 2, 3)), np.digitize(LEVEL, [1, 3]).astype(np.int64)),
    (Count("t", scale=2.0), np.floor(np.exp(LEVEL / 2)).astype(np.float32)),
    (Multilabel("t", labels=("x", "y")), np.column_stack([LEVEL > 1, np.zeros(700)]).astype(np.float32)),
    (Quantile("t", levels=(0.1, 0.5, 0.9), center=0.0, scale=1.0), LEVEL.astype(np.float32)),
]


def fitted(task: Task, targets: np.ndarray) -> Boosting:
    parts = [BoostingRows(matrix(700)[rows], targets[rows], 2) for rows in (slice(0, 600), slice(600, 700))]
    return Boosting.fit(task, *parts, seed=0, clock=Clock(0.5), threads=1)[0]


def by_graph(trees: Boosting, rows: np.ndarray) -> np.ndarray:
    graph = Graph()
    name = tree_nodes(graph, trees, "matrix")
    return run(graph, {"matrix": ("float32", 2)}, [name], {"matrix": rows})[0]


@pytest.mark.parametrize(("task", "targets"), CASES, ids=[case[0].kind for case in CASES])
def test_each_kind_says_what_lightgbm_says(task: Task, targets: np.ndarray) -> None:
    trees = fitted(task, targets)
    rows = matrix(300, seed=1)
    rows[:50, 1] = np.nan  # where training had no gap
    expected = trees.estimate(rows)
    found = by_graph(trees, rows)
    assert found.shape == expected.shape
    assert expected.std() > 0.01
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)


def test_splits_by_sets_of_categories_are_among_them() -> None:
    columns = fitted(*CASES[0]).columns()[0]
    assert columns.columns["num_cat"].sum() > 0
    assert columns.columns["cat_threshold"].max() > 0


def test_values_on_a_split_go_the_same_way() -> None:
    trees = fitted(*CASES[0])
    columns = trees.columns()[0].columns
    cuts = columns["threshold"][(columns["split_feature"] == 1) & (columns["decision_type"] & 1 == 0)]
    near = np.unique(cuts.astype(np.float32))
    values = np.concatenate([near, np.nextafter(near, np.float32(9)), np.nextafter(near, np.float32(-9))])
    rows = np.tile(matrix(1, seed=2, gaps=False), (len(values), 1))
    rows[:, 1] = values
    np.testing.assert_allclose(by_graph(trees, rows), trees.estimate(rows), rtol=2e-5, atol=2e-5)


def test_a_model_that_is_one_number() -> None:
    trees = Boosting(CASES[0][0], ["2.5"])
    np.testing.assert_array_equal(by_graph(trees, matrix(4)), np.full(4, 2.5, dtype=np.float32))


def test_zero_for_missing_is_refused() -> None:
    trees = fitted(*CASES[0])
    text = re.sub(r"decision_type=\d+", "decision_type=6", trees.texts[0], count=1)
    assert text != trees.texts[0]
    with pytest.raises(RequestError, match=r"'t'.*zero for missing.*--target"):
        by_graph(Boosting(trees.task, [text]), matrix(4))
