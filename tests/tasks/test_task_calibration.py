"""Calibration: what it lowers, what it leaves alone, and its fit against scikit-learn."""

import json

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from motet._errors import RequestError
from motet.tasks import (
    Binary,
    Calibration,
    Count,
    Multiclass,
    Multilabel,
    Ordinal,
    Quantile,
    Regression,
    _calibration,
    calibration_curve,
    calibration_error,
    fit_calibration,
)

BINARY = Binary("y", classes=(0, 1))
SEVERAL = Multiclass("y", classes=(0, 1, 2))


def overconfident(seed: int, rows: int, slope: float, offset: float) -> tuple[np.ndarray, np.ndarray]:
    """Estimates whose log odds are `slope` times the true ones plus `offset`."""
    generator = np.random.default_rng(seed)
    odds = generator.normal(0, 1.5, rows)
    happened = generator.random(rows) < 1 / (1 + np.exp(-odds))
    return 1 / (1 + np.exp(-(slope * odds + offset))), happened.astype(np.float32)


def softmax(scores: np.ndarray) -> np.ndarray:
    return np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)


def draw_classes(seed: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    logs = generator.normal(0, 1.5, (rows, 3))
    targets = (softmax(logs).cumsum(axis=1) < generator.random((rows, 1))).sum(axis=1)
    return logs, targets


def test_binary_calibration_is_the_logistic_regression_of_the_log_odds():
    estimates, targets = overconfident(0, 5000, 3.0, 1.0)
    fitted = fit_calibration(BINARY, estimates, targets)
    logits = np.log(estimates / (1 - estimates))
    peer = LogisticRegression(C=np.inf, tol=1e-8).fit(np.clip(logits, -16, 16)[:, None], targets)
    assert fitted.slopes[0] == pytest.approx(peer.coef_[0, 0], rel=2e-3)
    assert fitted.offsets[0] == pytest.approx(peer.intercept_[0], rel=5e-3)
    fresh, happened = overconfident(1, 5000, 3.0, 1.0)
    before, after = (BINARY.metrics(p, happened) for p in (fresh, fitted.apply(fresh)))
    assert after["roc_auc"] == before["roc_auc"]
    assert after["log_loss"] < before["log_loss"] - 0.1
    assert calibration_error(BINARY, fitted.apply(fresh), happened) < 0.03 < calibration_error(BINARY, fresh, happened)


def test_reversed_and_certain_estimates_keep_the_order_of_rows():
    estimates, targets = overconfident(0, 500, 1.0, 0.0)
    fitted = fit_calibration(BINARY, 1 - estimates, targets)
    assert fitted.slopes[0] == 0.05
    certain = np.array([0.0, 1e-20, 1e-9, 0.5, 1 - 1e-9, 1.0])
    assert (np.diff(fitted.apply(certain)) > 0).all()
    separated = fit_calibration(BINARY, targets * 0.2 + 0.4, targets)
    assert np.isfinite([*separated.slopes, *separated.offsets]).all()
    assert separated.slopes[0] > 1


def test_multilabel_calibrates_each_label_on_its_known_rows():
    task = Multilabel("y", labels=("a", "b", "c"))
    first, happened = overconfident(0, 1000, 3.0, 1.0)
    estimates, targets = np.stack([first] * 3, axis=1), np.stack([happened] * 3, axis=1)
    targets[50:, 1] = np.nan
    targets[::2, 2] = np.nan
    fitted = fit_calibration(task, estimates, targets)
    alone = fit_calibration(BINARY, first, happened)
    half = fit_calibration(BINARY, first[1::2], happened[1::2])
    assert fitted.slopes == (alone.slopes[0], 1.0, half.slopes[0])
    assert fitted.offsets == (alone.offsets[0], 0.0, half.offsets[0])
    np.testing.assert_allclose(fitted.apply(estimates)[:, 1], estimates[:, 1])


@pytest.mark.parametrize("task", [SEVERAL, Ordinal("y", classes=(0, 1, 2))])
def test_several_classes_get_back_temperature_and_bias(task: Multiclass | Ordinal):
    logs, targets = draw_classes(0, 8000)
    fitted = fit_calibration(task, softmax(2.0 * logs + np.array([1.0, 0.0, -1.0])), targets)
    assert fitted.method == "softmax"
    assert fitted.slopes[0] == pytest.approx(0.5, abs=0.03)
    offsets = np.array(fitted.offsets) - fitted.offsets[1]
    np.testing.assert_allclose(offsets, [-0.5, 0.0, 0.5], atol=0.1)
    np.testing.assert_allclose(fitted.apply(softmax(logs)).sum(axis=1), 1)


def test_a_class_with_few_rows_leaves_the_temperature_alone():
    logs, targets = draw_classes(0, 200)
    keep = (targets != 2) | (np.cumsum(targets == 2) <= 5)
    fitted = fit_calibration(SEVERAL, softmax(3.0 * logs[keep]), targets[keep])
    assert fitted.offsets == (0.0, 0.0, 0.0)
    assert 0 < fitted.slopes[0] < 1


@pytest.mark.parametrize("task", [Regression("y"), Count("y"), Quantile("y")])
def test_number_tasks_are_left_alone(task: Regression):
    assert fit_calibration(task, np.ones(200), np.ones(200)) == Calibration()
    with pytest.raises(RequestError, match=r"Task 'y' is a .* a calibration curve needs probabilities"):
        calibration_curve(task, np.ones(200), np.ones(200))


def test_few_rows_one_class_and_the_best_estimates_are_left_alone():
    estimates, targets = overconfident(0, 99, 3.0, 1.0)
    assert fit_calibration(BINARY, estimates, targets) == Calibration()
    assert fit_calibration(BINARY, np.tile(estimates, 3), np.ones(297)) == Calibration()
    logs, classes = draw_classes(0, 99)
    assert fit_calibration(SEVERAL, softmax(3 * logs), classes) == Calibration()
    assert fit_calibration(BINARY, np.zeros(0), np.zeros(0)) == Calibration()
    same = np.full(200, 0.5)
    assert fit_calibration(BINARY, same, np.tile([0.0, 1.0], 100)) == Calibration()
    right = np.repeat([0.25, 0.75], 100), np.tile([0.0, 0.0, 0.0, 1.0], 25)
    exact = np.concatenate([right[1], 1 - right[1]])
    assert fit_calibration(BINARY, right[0], exact) == Calibration()
    assert (
        fit_calibration(Multiclass("y", classes=(0, 1)), np.stack([1 - right[0], right[0]], 1), exact) == Calibration()
    )
    assert Calibration().apply(same) is same


def test_newton_has_the_derivatives_of_its_objective():
    logs, targets = draw_classes(0, 40)
    point, prior = np.array([0.7, 0.3, -0.2, 0.1]), np.array([1.0, 0.0, 0.0, 0.0])

    def objective(theta: torch.Tensor) -> torch.Tensor:
        scores = theta[0] * torch.from_numpy(logs) + theta[1:]
        likelihood = torch.log_softmax(scores, dim=1)[torch.arange(40), torch.from_numpy(targets)].sum()
        return 0.05 * ((theta - torch.from_numpy(prior)) ** 2).sum() - likelihood

    theta = torch.from_numpy(point)
    gradient, curvature = _calibration._derivatives(logs, targets, point, prior)
    assert _calibration._objective(logs, targets, point, prior) == pytest.approx(objective(theta).item())
    np.testing.assert_allclose(gradient, torch.autograd.functional.jacobian(objective, theta).numpy())
    np.testing.assert_allclose(curvature, torch.autograd.functional.hessian(objective, theta).numpy())


def test_calibration_survives_json_and_is_deterministic():
    estimates, targets = overconfident(0, 300, 3.0, 1.0)
    fitted = fit_calibration(BINARY, estimates, targets)
    assert Calibration.from_dict(json.loads(json.dumps(fitted.to_dict()))) == fitted
    assert fit_calibration(BINARY, estimates, targets) == fitted
    assert Calibration.from_dict(Calibration().to_dict()) == Calibration()


def test_curve_by_hand():
    estimates, targets = np.array([0.1, 0.2, 0.6, 0.8]), np.array([0.0, 0.0, 0.0, 1.0])
    curve = calibration_curve(BINARY, estimates, targets, bins=2)
    assert curve["predicted"] == pytest.approx([0.15, 0.7])
    assert curve["observed"] == [0.0, 0.5]
    assert curve["count"] == [2, 2]
    assert calibration_error(BINARY, estimates, targets, bins=2) == pytest.approx((0.15 + 0.2) / 2)
    assert calibration_curve(BINARY, np.full(9, 0.3), np.ones(9))["count"] == [9]
    assert calibration_curve(BINARY, np.zeros(0), np.zeros(0))["count"] == []
    with pytest.raises(RequestError, match="bins=0; pass at least 1"):
        calibration_curve(BINARY, estimates, targets, bins=0)


def test_curve_pools_classes_and_labels():
    logs, targets = draw_classes(0, 200)
    curve = calibration_curve(SEVERAL, softmax(logs), targets)
    assert sum(curve["count"]) == 600
    assert np.dot(curve["observed"], curve["count"]) == pytest.approx(200)
    labels = calibration_curve(Multilabel("y", labels=("a", "b")), np.full((3, 2), 0.5), np.array([[1, np.nan]] * 3))
    assert labels == {"predicted": [0.5], "observed": [1.0], "count": [3]}
