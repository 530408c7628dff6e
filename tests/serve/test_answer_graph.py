"""Mixtures, calibration and narrow constants, against the same in Python."""

from types import SimpleNamespace

import numpy as np
import pytest
from runtime import run

from motet.serve._answers import answer_nodes
from motet.serve._graph import Graph
from motet.tabular._blend import mixed
from motet.tasks import Calibration

DRAW = np.random.default_rng(0)
ODDS = np.concatenate([[0.0, 1.0, 1e-30], DRAW.random(50)]).astype(np.float32)
SHARES = DRAW.dirichlet([1, 1, 1], 50).astype(np.float32)
SHARES[0] = [1.0, 0.0, 0.0]
CASES = [
    (Calibration(), ODDS),
    (Calibration("platt", (0.7,), (-0.3,)), ODDS),
    (Calibration("platt", (0.7, 1.2, 2.0), (-0.3, 0.0, 1.0)), SHARES),
    (Calibration("softmax", (1.4,), (0.1, -0.2, 0.0)), SHARES),
]


def answered(shares: dict[str, float], calibration: Calibration, parts: dict[str, np.ndarray]) -> np.ndarray:
    graph = Graph()
    name = answer_nodes(graph, SimpleNamespace(shares=shares, calibration=calibration), [{one: one for one in parts}])
    dims = next(iter(parts.values())).ndim
    return run(graph, dict.fromkeys(parts, ("float32", dims)), [name], parts)[0]


@pytest.mark.parametrize(("calibration", "estimates"), CASES)
def test_calibrated_as_in_python(calibration, estimates):
    found = answered({"shared": 1.0}, calibration, {"shared": estimates})
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, calibration.apply(estimates), rtol=1e-6, atol=1e-7)


def test_a_blend_is_mixed_before_it_is_calibrated():
    calibration, shares = CASES[3][0], {"shared": 0.3, "own_lightgbm": 0.7}
    parts = {"shared": SHARES, "own_lightgbm": SHARES[::-1].copy()}
    expected = calibration.apply(mixed(parts, shares))
    np.testing.assert_allclose(answered(shares, calibration, parts), expected, rtol=1e-6, atol=1e-7)


def test_folds_are_averaged_before_they_are_calibrated():
    graph, calibration = Graph(), CASES[1][0]
    answer = SimpleNamespace(shares={"shared": 1.0}, calibration=calibration)
    name = answer_nodes(graph, answer, [{"shared": "a"}, {"shared": "b"}, {"shared": "a"}])
    parts = {"a": ODDS, "b": ODDS[::-1].copy()}
    (found,) = run(graph, dict.fromkeys(parts, ("float32", 1)), [name], parts)
    expected = calibration.apply((2 * parts["a"].astype(np.float64) + parts["b"]) / 3)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


def test_a_large_constant_is_narrow_only_where_that_loses_nothing():
    exact = DRAW.normal(size=(40, 40)).astype(np.float16).astype(np.float32)
    for values, kind in ((exact, 10), (exact + np.float32(1e-4), 1), (np.full((40, 40), 1e6, np.float32), 1)):
        graph = Graph()
        total = graph.add("Add", ["x", graph.constant(values)])
        assert [constant.data_type for constant in graph.constants.values()] == [kind]
        (found,) = run(graph, {"x": ("float32", 2)}, [total], {"x": np.zeros((40, 40), np.float32)})
        np.testing.assert_array_equal(found, values)
