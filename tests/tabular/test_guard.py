"""The guard's test: what it proves, by hand and by simulation."""

import numpy as np
import pytest
from scipy import stats

from motet.tabular import Comparison, compare, draw_weights
from motet.tasks import Binary, Regression

NUMBER = Regression("n", center=0.0, scale=1.0)
YES_NO = Binary("b", classes=(False, True))


def noisy(generator: np.random.Generator, count: int, first: float, second: float) -> tuple[np.ndarray, ...]:
    """Targets, and two estimates of them with errors of the two sizes."""
    targets = generator.normal(size=count)
    return targets, targets + first * generator.normal(size=count), targets + second * generator.normal(size=count)


def test_gain_by_hand_is_positive_where_the_first_is_better() -> None:
    targets = np.zeros(4)
    weights = draw_weights(4, resamples=10, seed=0)
    better = compare(NUMBER, np.full(4, 1.0), np.full(4, 2.0), targets, weights)
    assert better.gain == pytest.approx(50.0)
    assert compare(NUMBER, np.full(4, 2.0), np.full(4, 1.0), targets, weights).gain == pytest.approx(-100.0)
    labels = np.array([0.0, 0.0, 1.0, 1.0])
    perfect, half = np.array([0.1, 0.2, 0.8, 0.9]), np.full(4, 0.5)
    assert compare(YES_NO, perfect, half, labels, weights).gain == pytest.approx(100.0)


def test_clear_cases_get_clear_verdicts() -> None:
    targets, good, bad = noisy(np.random.default_rng(0), 2000, 0.5, 0.7)
    weights = draw_weights(2000, resamples=300, seed=0)
    assert compare(NUMBER, good, bad, targets, weights).verdict(0.5) == "not worse"
    assert compare(NUMBER, bad, good, targets, weights).verdict(0.5) == "worse"
    same = compare(NUMBER, good, good, targets, weights)
    assert (same.gain, same.low, same.high) == (0.0, 0.0, 0.0)
    assert same.verdict(0.0) == "not worse"


@pytest.mark.parametrize(
    ("low", "high", "margin", "verdict"),
    [
        (-0.4, 0.3, 0.5, "not worse"),
        (-0.6, 0.3, 0.5, "not proven"),
        (-0.4, -0.1, 0.5, "worse"),
        (0.1, 0.2, 0.0, "not worse"),
        (np.nan, np.nan, 0.5, "not proven"),
    ],
)
def test_verdicts(low: float, high: float, margin: float, verdict: str) -> None:
    assert Comparison((low + high) / 2, low, high).verdict(margin) == verdict


def test_few_rows_and_one_class_prove_nothing() -> None:
    targets, good, bad = noisy(np.random.default_rng(0), 10, 0.1, 0.9)
    assert compare(NUMBER, good, bad, targets, draw_weights(10, resamples=50, seed=0)).verdict(5.0) == "not proven"
    labels = np.ones(100)
    comparison = compare(
        YES_NO, np.linspace(0, 1, 100), np.full(100, 0.5), labels, draw_weights(100, resamples=50, seed=0)
    )
    assert comparison.verdict(5.0) == "not proven"
    empty = compare(NUMBER, np.zeros(0), np.zeros(0), np.zeros(0), draw_weights(0, resamples=5, seed=0))
    assert empty.verdict(5.0) == "not proven"


def test_interval_covers_the_true_gain_about_95_times_in_100() -> None:
    truth = 100 * (1 - 0.6 / 0.7)
    hits = 0
    for seed in range(100):
        targets, good, bad = noisy(np.random.default_rng(seed), 400, 0.6, 0.7)
        found = compare(NUMBER, good, bad, targets, draw_weights(400, resamples=200, seed=seed))
        hits += found.low <= truth <= found.high
    assert stats.binomtest(hits, 100, 0.95).pvalue > 0.001


def test_two_equal_models_are_rarely_called_worse() -> None:
    worse = 0
    for seed in range(100):
        targets, first, second = noisy(np.random.default_rng(1000 + seed), 400, 0.6, 0.6)
        worse += (
            compare(NUMBER, first, second, targets, draw_weights(400, resamples=200, seed=seed)).verdict(0.5) == "worse"
        )
    assert worse <= 9  # 2.5 expected


def test_weights_have_mean_one_and_keep_groups_together() -> None:
    weights = draw_weights(300, resamples=400, seed=0)
    assert weights.shape == (400, 300)
    assert weights.mean() == pytest.approx(1.0, abs=0.02)
    assert np.array_equal(weights, draw_weights(300, resamples=400, seed=0))
    groups = np.repeat(np.arange(30), 10)
    grouped = draw_weights(300, resamples=50, seed=0, groups=groups).reshape(50, 30, 10)
    assert (grouped == grouped[:, :, :1]).all()
    assert len(np.unique(grouped[0, :, 0])) > 1
