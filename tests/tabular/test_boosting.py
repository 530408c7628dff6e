"""Each kind of task through LightGBM, and through its bytes."""

import numpy as np
import pytest

from motet.tabular._boosting import Boosting, BoostingRows
from motet.tasks import Binary, Count, Multiclass, Multilabel, Ordinal, Quantile, Regression, Task
from motet.train import Clock


def matrix(count: int = 600) -> np.ndarray:
    generator = np.random.default_rng(0)
    return np.column_stack([generator.normal(size=(count, 2)), generator.integers(0, 4, count)]).astype(np.float32)


LEVEL = matrix()[:, 0] + matrix()[:, 2]
CASES = [
    (Regression("t", center=0.0, scale=1.0), LEVEL.astype(np.float32), "r2"),
    (Binary("t", classes=(False, True)), (LEVEL > 1.5).astype(np.float32), "roc_auc"),
    (Multiclass("t", classes=("a", "b", "c")), np.digitize(LEVEL, [1, 2]).astype(np.int64), "macro_roc_auc"),
    (Ordinal("t", classes=(1, 2, 3)), np.digitize(LEVEL, [1, 2]).astype(np.int64), "weighted_kappa"),
    (Count("t", scale=2.0), np.floor(np.exp(LEVEL / 2)).astype(np.float32), "r2"),
    (Multilabel("t", labels=("x", "y")), np.column_stack([LEVEL > 1, LEVEL > 2]).astype(np.float32), "macro_roc_auc"),
]


def fit(task: Task, targets: np.ndarray, clock: Clock | None = None) -> Boosting:
    parts = [BoostingRows(matrix()[rows], targets[rows], 1) for rows in (slice(0, 400), slice(400, 500))]
    return Boosting.fit(task, *parts, seed=0, clock=clock or Clock(), threads=1)[0]


@pytest.mark.parametrize(("task", "targets", "metric"), CASES, ids=[case[0].kind for case in CASES])
def test_each_kind_learns_and_survives_its_bytes(task: Task, targets: np.ndarray, metric: str) -> None:
    trees = fit(task, targets)
    estimates = trees.estimate(matrix()[500:])
    assert task.metrics(estimates, targets[500:])[metric] > 0.8
    again = Boosting.from_bytes(task, trees.to_bytes()).estimate(matrix()[500:])
    np.testing.assert_array_equal(again, estimates)


def test_quantiles_are_ordered_and_cover() -> None:
    task = Quantile("t", levels=(0.1, 0.5, 0.9), center=0.0, scale=1.0)
    targets = (LEVEL + np.random.default_rng(1).normal(size=600)).astype(np.float32)
    estimates = fit(task, targets).estimate(matrix()[500:])
    assert (np.diff(estimates, axis=1) >= 0).all()
    inside = (targets[500:] >= estimates[:, 0]) & (targets[500:] <= estimates[:, 2])
    assert 0.45 < inside.mean() < 0.95


def test_a_label_that_never_varies_becomes_a_constant() -> None:
    task = Multilabel("t", labels=("x", "y"))
    targets = np.column_stack([LEVEL > 1, np.zeros(600)]).astype(np.float32)
    estimates = fit(task, targets).estimate(matrix()[500:])
    assert (estimates[:, 1] == 0).all()
    assert estimates[:, 0].std() > 0


def test_missing_single_labels_are_left_out() -> None:
    task = Multilabel("t", labels=("x", "y"))
    targets = np.column_stack([LEVEL > 1, LEVEL > 2]).astype(np.float32)
    targets[::2, 1] = np.nan
    assert task.metrics(fit(task, targets).estimate(matrix()[500:]), targets[500:])["macro_roc_auc"] > 0.8


def test_the_clock_ends_training_with_a_usable_model() -> None:
    estimates = fit(CASES[0][0], CASES[0][1], Clock(0.0)).estimate(matrix()[500:])
    assert np.isfinite(estimates).all()
