"""Rows of a series: how long they stay alike, and what a test that knows it proves."""

import numpy as np
import pytest

from motet.tabular import draw_weights
from motet.tabular._dependence import block_length, row_errors
from motet.tabular._guard import HeldOut
from motet.tasks import Binary, Multiclass, Multilabel, Regression

NUMBER = Regression("n", center=0.0, scale=1.0)


def series(seed: int, count: int, memory: float) -> np.ndarray:
    """An autoregressive series of unit variance."""
    noise = np.random.default_rng(seed).normal(size=count) * np.sqrt(1 - memory**2)
    values = np.empty(count)
    values[0] = noise[0]
    for place in range(1, count):
        values[place] = memory * values[place - 1] + noise[place]
    return values


def test_independent_rows_are_drawn_alone() -> None:
    lengths = [block_length(series(seed, 2000, 0.0)) for seed in range(40)]
    assert np.mean(np.array(lengths) == 1) > 0.9


@pytest.mark.parametrize("memory", [0.5, 0.9, 0.98])
def test_blocks_grow_with_the_memory_of_a_series(memory: float) -> None:
    lasting = (1 + memory) / (1 - memory)  # of an autoregressive series, exactly
    lengths = [block_length(series(seed, 20_000, memory)) for seed in range(20)]
    assert np.median(lengths) == pytest.approx(4 * lasting, rel=0.35)


def test_nothing_to_learn_from_gives_single_rows() -> None:
    assert block_length(np.zeros(0)) == block_length(np.ones(50)) == block_length(np.array([1.0, 2.0])) == 1
    assert block_length(np.arange(100.0)) == 100  # a trend is one block


def test_two_equal_models_of_a_series_are_rarely_called_different() -> None:
    """With single rows an interval from a series is far too narrow; with blocks it is about right."""
    wrong = {1: 0, "blocks": 0}
    for seed in range(60):
        targets, count = np.zeros(1500), 1500
        estimates = {"a": series(seed, count, 0.95), "b": series(1000 + seed, count, 0.95)}
        errors = [row_errors(NUMBER, part, targets) for part in estimates.values()]
        block = block_length(errors[0] - errors[1])
        for key, length in ((1, 1), ("blocks", block)):
            groups = np.arange(count) // length
            weights = draw_weights(count, resamples=200, seed=seed, groups=groups)
            found = HeldOut(NUMBER, estimates, targets, weights, draws=len(np.unique(groups))).compare("a", "b")
            wrong[key] += found.low > 0 or found.high < 0
    assert wrong[1] >= 20
    assert wrong["blocks"] <= 9


def test_a_handful_of_blocks_proves_nothing() -> None:
    targets = np.zeros(400)
    estimates = {"a": np.full(400, 0.1), "b": np.full(400, 0.9)}
    groups = np.arange(400) // 100
    weights = draw_weights(400, resamples=100, seed=0, groups=groups)
    assert HeldOut(NUMBER, estimates, targets, weights, draws=4).compare("a", "b").verdict(0.5) == "not proven"
    assert HeldOut(NUMBER, estimates, targets, weights, draws=400).compare("a", "b").verdict(0.5) == "not worse"


def test_row_errors_by_hand() -> None:
    assert row_errors(NUMBER, np.array([1.0, 2.0]), np.array([0.0, 4.0])).tolist() == [1.0, 4.0]
    yes_no = Binary("b", classes=(False, True))
    assert row_errors(yes_no, np.array([0.75]), np.array([1.0])).tolist() == [0.0625]
    grade = Multiclass("g", classes=("x", "y"))
    assert row_errors(grade, np.array([[0.5, 0.5], [0.0, 1.0]]), np.array([0, 1])).tolist() == [0.25, 0.0]
    labels = Multilabel("m", labels=("x", "y"))
    assert row_errors(labels, np.array([[0.5, 1.0]]), np.array([[1.0, np.nan]])).tolist() == [0.125]
