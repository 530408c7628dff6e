"""Metrics against scikit-learn, with and without weights."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as peer

from motet.tasks import _metrics

FAST = settings(max_examples=25, deadline=None)


def rows_and_weights(seed: int, rows: int = 60) -> tuple[np.random.Generator, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator, generator.integers(0, 4, (3, rows))


@FAST
@given(seed=st.integers(0, 10_000), digits=st.sampled_from([0, 1, 8]))
def test_auc(seed: int, digits: int):
    generator, weights = rows_and_weights(seed)
    scores, positives = np.round(generator.random(60), digits), generator.random(60) < 0.4
    expected = [peer.roc_auc_score(positives, scores, sample_weight=w) for w in weights]
    np.testing.assert_allclose(_metrics.roc_auc(scores, positives, weights), expected)
    np.testing.assert_allclose(_metrics.roc_auc(scores, positives), peer.roc_auc_score(positives, scores))


def test_auc_by_hand():
    # Positives score 1 and 2, negatives 1 and 0: pairs give 1/2 + 1 + 1 + 1 of 4.
    assert _metrics.roc_auc(np.array([1, 2, 1, 0]), np.array([1, 1, 0, 0]))[0] == 3.5 / 4


def test_auc_without_both_sides_is_not_defined():
    scores, positives = np.array([0.1, 0.2, 0.3]), np.array([True, True, False])
    assert np.isnan(_metrics.roc_auc(scores, positives, np.array([[1, 1, 0], [0, 0, 2]]))).all()
    assert np.isnan(_metrics.roc_auc(scores[:0], positives[:0])).all()
    assert np.isnan(_metrics.roc_auc(np.array([np.nan, 0.2, 0.3]), positives)).all()


@FAST
@given(seed=st.integers(0, 10_000))
def test_class_metrics(seed: int):
    generator, weights = rows_and_weights(seed, 80)
    estimates, targets = generator.dirichlet(np.ones(4), 80), generator.integers(0, 4, 80)
    targets[:4] = range(4)
    weights[:, :4] = 1
    expected = [
        peer.roc_auc_score(targets, estimates, multi_class="ovr", average="macro", sample_weight=w) for w in weights
    ]
    np.testing.assert_allclose(_metrics.macro_roc_auc(estimates, targets, weights), expected)
    readings = estimates.argmax(axis=1)
    table = _metrics.confusion(readings, targets, 4)
    np.testing.assert_array_equal(table, peer.confusion_matrix(targets, readings, labels=range(4)))
    assert _metrics.macro_f1(table) == pytest.approx(peer.f1_score(targets, readings, average="macro"))
    kappa = peer.cohen_kappa_score(targets, readings, weights="quadratic")
    assert _metrics.weighted_kappa(table) == pytest.approx(kappa)
    expected = [peer.log_loss(targets, estimates, sample_weight=w) for w in weights]
    np.testing.assert_allclose(_metrics.log_loss(estimates, targets, weights), expected)
    expected = [peer.accuracy_score(targets, readings, sample_weight=w) for w in weights]
    np.testing.assert_allclose(_metrics.accuracy(readings, targets, weights), expected)


def test_a_class_that_no_row_has_is_left_out_of_macro_metrics():
    estimates, targets = np.array([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.5, 0.4, 0.1]]), np.array([0, 1, 1])
    assert _metrics.macro_roc_auc(estimates, targets)[0] == 1.0
    # Class 0: precision 1/2, recall 1; class 1: precision 1, recall 1/2; class 2 does not occur.
    assert _metrics.macro_f1(_metrics.confusion(estimates.argmax(1), targets, 3)) == pytest.approx(2 / 3)


@FAST
@given(seed=st.integers(0, 10_000), digits=st.sampled_from([1, 8]))
def test_yes_or_no_metrics(seed: int, digits: int):
    generator, weights = rows_and_weights(seed)
    estimates, positives = np.round(generator.uniform(0.05, 0.95, 60), digits), generator.random(60) < 0.4
    positives[:2] = [True, False]
    weights[:, :2] = 1
    average = _metrics.average_precision(estimates, positives)
    assert average == pytest.approx(peer.average_precision_score(positives, estimates))
    expected = [peer.brier_score_loss(positives, estimates, sample_weight=w) for w in weights]
    np.testing.assert_allclose(_metrics.brier(estimates, positives, weights), expected)
    clipped = np.clip(estimates, 1e-9, 1 - 1e-9)
    expected = [peer.log_loss(positives, clipped, sample_weight=w) for w in weights]
    np.testing.assert_allclose(_metrics.binary_log_loss(clipped, positives, weights), expected, rtol=1e-6)


@FAST
@given(seed=st.integers(0, 10_000))
def test_label_metrics(seed: int):
    generator, weights = rows_and_weights(seed, 80)
    estimates, targets = generator.random((80, 3)), (generator.random((80, 3)) < 0.4).astype(float)
    expected = [peer.roc_auc_score(targets, estimates, average="macro", sample_weight=w) for w in weights]
    np.testing.assert_allclose(_metrics.label_roc_auc(estimates, targets, weights), expected)
    f1 = peer.f1_score(targets, estimates > 0.5, average="micro")
    assert _metrics.micro_f1(estimates > 0.5, targets > 0.5) == pytest.approx(f1)
    holes = np.where(generator.random((80, 3)) < 0.3, np.nan, targets)
    expected = np.mean(
        [peer.roc_auc_score(holes[k, c], estimates[k, c]) for c in range(3) for k in [~np.isnan(holes[:, c])]]
    )
    np.testing.assert_allclose(_metrics.label_roc_auc(estimates, holes)[0], expected)


@FAST
@given(seed=st.integers(0, 10_000), level=st.floats(0.05, 0.95))
def test_number_metrics(seed: int, level: float):
    generator, weights = rows_and_weights(seed)
    estimates, targets = generator.gamma(2.0, 1.0, 60), generator.poisson(2.0, 60)
    pairs = [
        (_metrics.rmse, peer.root_mean_squared_error),
        (_metrics.mae, peer.mean_absolute_error),
        (_metrics.r2, peer.r2_score),
        (_metrics.poisson_deviance, peer.mean_poisson_deviance),
    ]
    for ours, theirs in pairs:
        expected = [theirs(targets, estimates, sample_weight=w) for w in weights]
        np.testing.assert_allclose(ours(estimates, targets, weights), expected, rtol=1e-8, err_msg=ours.__name__)
        np.testing.assert_allclose(ours(estimates, targets)[0], theirs(targets, estimates), rtol=1e-8)
    both = np.stack([estimates, estimates + 1], axis=1)
    expected = [
        0.5 * peer.mean_pinball_loss(targets, estimates, alpha=level, sample_weight=w)
        + 0.5 * peer.mean_pinball_loss(targets, estimates + 1, alpha=0.97, sample_weight=w)
        for w in weights
    ]
    np.testing.assert_allclose(_metrics.pinball(both, targets, (level, 0.97), weights), expected)


def test_rps_by_hand():
    # Cumulative shares .2 and .7 against the steps of class 1 (0, 1) and of class 0 (1, 1), over C - 1 = 2.
    estimates = np.array([[0.2, 0.5, 0.3], [0.2, 0.5, 0.3]])
    expected = np.array([(0.2**2 + 0.3**2) / 2, (0.8**2 + 0.3**2) / 2])
    np.testing.assert_allclose(_metrics.rps(estimates, np.array([1, 0])), [expected.mean()])
    np.testing.assert_allclose(_metrics.rps(estimates, np.array([1, 0]), np.eye(2)), expected)


def test_zeros_and_means_of_zero_have_a_finite_deviance():
    assert _metrics.poisson_deviance(np.array([0.0, 1e-12]), np.array([0, 0]))[0] == pytest.approx(2e-10)
    assert np.isfinite(_metrics.poisson_deviance(np.array([0.0]), np.array([3]))[0])


def test_many_resamples_are_read_in_pieces(monkeypatch: pytest.MonkeyPatch):
    generator = np.random.default_rng(0)
    scores, positives = generator.random(50), generator.random(50) < 0.5
    weights = generator.integers(0, 3, (17, 50)).astype(np.uint8)
    whole = _metrics.roc_auc(scores, positives, weights), _metrics.rmse(scores, positives, weights)
    monkeypatch.setattr(_metrics, "_PIECE", 120)
    np.testing.assert_allclose(_metrics.roc_auc(scores, positives, weights), whole[0])
    np.testing.assert_allclose(_metrics.rmse(scores, positives, weights), whole[1])
    np.testing.assert_allclose(whole[0], [peer.roc_auc_score(positives, scores, sample_weight=w) for w in weights])


def test_large_bootstraps_stay_in_memory():
    generator = np.random.default_rng(0)
    scores, positives = generator.random(100_000), generator.random(100_000) < 0.5
    weights = generator.integers(0, 3, (60, 100_000), dtype=np.uint8)
    tracemalloc.start()
    _metrics.roc_auc(scores, positives, weights)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6
