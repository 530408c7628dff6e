import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

metrics = pytest.importorskip("sklearn.metrics")

from _scores import AreaUnderCurve, compare, poisson_deviance, r2, score  # noqa: E402

ROWS = 40


@given(
    labels=arrays(bool, ROWS).filter(lambda a: 0 < a.sum() < ROWS),
    scores=arrays(np.float64, ROWS, elements=st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0])),
    weights=arrays(np.int64, ROWS, elements=st.integers(1, 3)),
)
def test_the_area_is_scikit_learns_with_ties_and_weights(labels, scores, weights):
    expected = metrics.roc_auc_score(labels, scores, sample_weight=weights)
    assert AreaUnderCurve(labels, scores)(weights.astype(float)) == pytest.approx(expected, abs=1e-12)


def test_numbers_and_counts_score_as_in_scikit_learn():
    random = np.random.default_rng(0)
    truth, weights = random.poisson(3, 200).astype(float), random.integers(0, 4, 200).astype(float)
    predicted = truth + random.uniform(0.1, 2, 200)
    assert r2(truth, predicted, weights) == pytest.approx(metrics.r2_score(truth, predicted, sample_weight=weights))
    expected = metrics.mean_poisson_deviance(truth, predicted, sample_weight=weights)
    assert poisson_deviance(truth, predicted, weights) == pytest.approx(expected)


def test_classes_score_as_in_scikit_learn():
    random = np.random.default_rng(0)
    truth = random.integers(0, 3, 300).astype(float)
    predicted = random.dirichlet(np.ones(3), 300) + 0.5 * np.eye(3)[truth.astype(int)]
    predicted /= predicted.sum(axis=1, keepdims=True)
    found, _ = score("multiclass", truth, predicted)
    assert found["roc_auc"] == pytest.approx(metrics.roc_auc_score(truth, predicted, multi_class="ovr"))
    assert found["log_loss"] == pytest.approx(metrics.log_loss(truth, predicted))


def test_a_class_that_no_test_row_has_is_left_out():
    truth = np.array([0.0, 0.0, 1.0, 1.0])
    predicted = np.array([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.1, 0.8, 0.1]])
    assert score("multiclass", truth, predicted)[0]["roc_auc"] == 1.0


def test_rows_without_a_label_do_not_count():
    truth, predicted = np.array([1.0, np.nan, 3.0, 5.0]), np.array([1.0, 99.0, 3.0, 5.0])
    found, resampled = score("regression", truth, predicted)
    assert found == {"r2": 1.0, "rmse": 0.0}
    assert resampled.shape == (500,)


def test_resamples_of_two_models_are_paired():
    truth = np.random.default_rng(0).normal(size=100)
    one, two = (score("regression", truth, truth * factor)[1] for factor in (0.9, 0.9))
    assert np.array_equal(one, two)
    assert compare("regression", [one], [two]) == (0.0, 0.0)


@pytest.mark.parametrize(("kind", "sign"), [("regression", 1), ("count", -1)])
def test_the_interval_is_turned_so_that_more_is_better(kind, sign):
    spread = np.linspace(1, 2, 500)
    low, high = compare(kind, [spread], [np.zeros(500)])
    # the 2.5% and 97.5% points of numbers that lie evenly from 1 to 2
    assert sorted((sign * low, sign * high)) == pytest.approx([1.025, 1.975])


def test_seeds_are_averaged():
    assert compare("regression", [np.zeros(500), np.full(500, 2.0)], [np.zeros(500)]) == (1.0, 1.0)
