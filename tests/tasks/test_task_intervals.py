"""Split-conformal intervals: the quantile by hand, and coverage on fresh rows."""

import json

import numpy as np
import pytest

from motet._errors import RequestError
from motet.tasks import Binary, Count, Interval, Multiclass, Quantile, Regression, Task, fit_interval


def test_the_radius_is_the_kth_smallest_error():
    errors = np.random.default_rng(0).permutation(np.arange(1, 100))
    signs = np.where(np.arange(99) % 2, 1, -1)
    found = fit_interval(Regression("y"), np.zeros(99), errors * signs, level=0.9)
    assert found == Interval("absolute", 0.9, 90.0)  # k = 100 · 0.9
    assert [end.tolist() for end in found.bounds(np.array([5.0]))] == [[-85.0], [95.0]]
    # n = 100 needs k = ⌈90.9⌉ = 91.
    assert fit_interval(Regression("y"), np.zeros(100), np.arange(1, 101), level=0.9).radius == 91.0


@pytest.mark.parametrize("task", [Regression("y"), Count("y"), Quantile("y")])
def test_too_few_rows_have_no_interval(task: Task):
    shape = (19, 3) if isinstance(task, Quantile) else (19,)
    assert fit_interval(task, np.zeros(shape), np.zeros(19)) is None
    shape = (20, *shape[1:])
    assert fit_interval(task, np.zeros(shape), np.zeros(20)) is not None
    assert fit_interval(task, np.zeros(shape), np.zeros(20), level=0.99) is None  # k = 21 exceeds n


def test_classes_have_no_interval_and_levels_are_shares():
    assert fit_interval(Binary("y"), np.ones(50), np.ones(50)) is None
    assert fit_interval(Multiclass("y"), np.ones((50, 2)), np.ones(50)) is None
    with pytest.raises(RequestError, match=r"'y' was asked for with level=90; pass a number between 0 and 1"):
        fit_interval(Regression("y"), np.zeros(50), np.zeros(50), level=90)


def draw(task: Task, generator: np.random.Generator, rows: int) -> tuple[np.ndarray, np.ndarray]:
    means = generator.gamma(2.0, 2.0, rows)
    if isinstance(task, Count):
        return means, generator.poisson(means)
    targets = means + generator.standard_t(3, rows) * means
    if isinstance(task, Quantile):
        return means[:, None] + np.array([-0.3, 0.0, 0.3]), targets
    return means, targets


@pytest.mark.parametrize("level", [0.5, 0.9])
@pytest.mark.parametrize("task", [Regression("y"), Count("y"), Quantile("y")])
def test_coverage_on_fresh_rows(task: Task, level: float):
    generator = np.random.default_rng(0)
    found = fit_interval(task, *draw(task, generator, 4000), level=level)
    estimates, targets = draw(task, generator, 8000)
    low, high = found.bounds(estimates)
    coverage = np.mean((low <= targets) & (targets <= high))
    assert coverage > level - 0.02
    if not isinstance(task, Count):  # whole numbers are covered a little more often
        assert coverage < level + 0.02
    assert (low <= high).all()
    if isinstance(task, Count):
        assert (low >= 0).all()
        assert low.min() == 0
    assert Interval.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_quantiles_that_are_too_wide_move_in_and_never_cross():
    estimates = np.tile([-10.0, 0.0, 10.0], (50, 1))
    found = fit_interval(Quantile("y"), estimates, np.linspace(-1, 1, 50))
    assert found.radius < 0
    low, high = found.bounds(np.array([[0.0, 1.0, 2.0], [-10.0, 0.0, 10.0]]))
    assert low[0] == high[0] == 1.0
    assert -2 < low[1] < 0 < high[1] < 2
