"""Probabilities that mean what they say: fitted on held-out rows, kept only where they help."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from motet._errors import RequestError
from motet.tasks import _metrics
from motet.tasks._binary import Binary
from motet.tasks._links import logit
from motet.tasks._multiclass import Multiclass
from motet.tasks._multilabel import Multilabel
from motet.tasks._ordinal import Ordinal
from motet.tasks._task import Task

MIN_ROWS = 100  # fewer labelled rows than this are not calibrated
_MIN_CLASS_ROWS = 20  # a class with fewer rows gets no bias of its own, and neither do the others
_MIN_SLOPE = 0.05  # positive, so that calibration keeps the order of rows
_PRIOR = 0.1  # precision of a Gaussian prior on slope 1 and offset 0; separable rows have no finite optimum without
_GAIN = 1e-9  # a log loss lowered by less than this is rounding
_TINY, _NEARLY_ONE = 1e-300, 1.0 - 2.0**-53
_FIT_TINY = 1e-7  # a probability of zero must not rule the fit


@dataclass(frozen=True)
class Calibration:
    """A map of estimates to calibrated estimates.

    Args:
        method: "identity"; "platt", σ(slope·logit(p) + offset) for each label; or "softmax",
            softmax(slope·log p + offsets) over the classes.
        slopes: one for each label ("platt"), or one.
        offsets: one for each label ("platt") or for each class ("softmax").
    """

    method: str = "identity"
    slopes: tuple[float, ...] = ()
    offsets: tuple[float, ...] = ()

    def apply(self, estimates: np.ndarray) -> np.ndarray:
        """Calibrated estimates of the same shape, in float64 unless nothing changes."""
        if self.method == "identity":
            return np.asarray(estimates)
        clipped = np.clip(np.asarray(estimates, dtype=np.float64), _TINY, _NEARLY_ONE)
        slopes, offsets = np.array(self.slopes), np.array(self.offsets)
        if self.method == "platt":
            return np.exp(-np.logaddexp(0.0, -(slopes * logit(clipped) + offsets)))
        return _softmax(slopes * np.log(clipped) + offsets)

    def to_dict(self) -> dict[str, Any]:
        """The calibration as plain JSON data."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Calibration":
        """The way back from `to_dict`."""
        return cls(str(data["method"]), tuple(data["slopes"]), tuple(data["offsets"]))


def fit_calibration(task: Task, estimates: np.ndarray, targets: np.ndarray) -> Calibration:
    """Fits the map that lowers the log loss of a task with probabilities on held-out rows.

    Binary tasks and each label of multilabel ones get a positive slope and an offset on the log odds, which keep the
    order of rows; multiclass and ordinal tasks get a temperature, and an offset for each class where every class has
    20 rows. The identity comes back for tasks with numbers, for under 100 rows, and where the log loss is not lowered.

    Args:
        task: the fitted task.
        estimates: (N,), (N, L) or (N, C), of rows that have a label.
        targets: as `task.encode` gives them.
    """
    estimates, targets = np.asarray(estimates, dtype=np.float64), np.asarray(targets)
    if isinstance(task, Binary):
        return _platt(estimates[:, None], targets[:, None])
    if isinstance(task, Multilabel):
        return _platt(estimates, targets)
    if isinstance(task, (Multiclass, Ordinal)) and len(targets) >= MIN_ROWS:
        return _temperature(estimates, targets.astype(np.int64))
    return Calibration()


def _platt(estimates: np.ndarray, targets: np.ndarray) -> Calibration:
    slopes: list[float] = []
    offsets: list[float] = []
    for column in range(estimates.shape[1]):
        known = ~np.isnan(targets[:, column])
        slope, offset = _platt_one(estimates[known, column], targets[known, column] > 0.5)
        slopes.append(slope)
        offsets.append(offset)
    if all(slope == 1.0 for slope in slopes) and not any(offsets):
        return Calibration()
    return Calibration("platt", tuple(slopes), tuple(offsets))


def _platt_one(estimates: np.ndarray, happened: np.ndarray) -> tuple[float, float]:
    if len(happened) < MIN_ROWS or happened.all() or not happened.any():
        return 1.0, 0.0
    # Two classes: softmax(slope·log p + offsets) is Platt's map, with the difference of the offsets as its offset.
    slope, offsets = _fit_softmax(np.stack([1.0 - estimates, estimates], axis=1), happened.astype(np.int64), bias=True)
    fitted = Calibration("platt", (slope,), (float(offsets[1] - offsets[0]),))
    before = _metrics.binary_log_loss(estimates, happened)[0]
    after = _metrics.binary_log_loss(fitted.apply(estimates), happened)[0]
    return (fitted.slopes[0], fitted.offsets[0]) if after < before - _GAIN else (1.0, 0.0)


def _temperature(estimates: np.ndarray, targets: np.ndarray) -> Calibration:
    counts = np.bincount(targets, minlength=estimates.shape[1])
    best, lowest = Calibration(), _metrics.log_loss(estimates, targets)[0]
    for bias in (False, True) if counts.min() >= _MIN_CLASS_ROWS else (False,):
        slope, offsets = _fit_softmax(estimates, targets, bias=bias)
        fitted = Calibration("softmax", (slope,), tuple(offsets.tolist()))
        loss = _metrics.log_loss(fitted.apply(estimates), targets)[0]
        if loss < lowest - _GAIN:
            best, lowest = fitted, loss
    return best


def _fit_softmax(estimates: np.ndarray, targets: np.ndarray, *, bias: bool) -> tuple[float, np.ndarray]:
    """The slope and the offsets (C,) of softmax(slope·log p + offsets) with the lowest log loss, by damped Newton."""
    logs = np.log(np.clip(estimates, _FIT_TINY, 1.0))
    num_classes = logs.shape[1]
    prior = np.concatenate([[1.0], np.zeros(num_classes)])
    free = np.concatenate([[True], np.full(num_classes, bias)])
    point = _newton(logs, targets, prior, free)
    if point[0] < _MIN_SLOPE:
        prior[0], free[0] = _MIN_SLOPE, False
        point = _newton(logs, targets, prior, free) if bias else prior
    return float(point[0]), point[1:]


def _newton(logs: np.ndarray, targets: np.ndarray, prior: np.ndarray, free: np.ndarray) -> np.ndarray:
    point = prior.copy()
    loss = _objective(logs, targets, point, prior)
    for _ in range(50):
        gradient, curvature = _derivatives(logs, targets, point, prior)
        step = np.zeros_like(point)
        step[free] = np.linalg.solve(curvature[np.ix_(free, free)], gradient[free])
        size = 1.0
        # The objective is convex; halving until it falls makes the step safe far from the optimum.
        while size > 1e-6 and not _objective(logs, targets, point - size * step, prior) < loss:
            size *= 0.5
        if size <= 1e-6:
            break
        point = point - size * step
        lower = _objective(logs, targets, point, prior)
        if loss - lower <= 1e-12 * abs(loss):
            break
        loss = lower
    return point


def _objective(logs: np.ndarray, targets: np.ndarray, point: np.ndarray, prior: np.ndarray) -> float:
    scores = point[0] * logs + point[1:]
    top = scores.max(axis=1)
    total = np.log(np.exp(scores - top[:, None]).sum(axis=1)) + top
    losses = total - np.take_along_axis(scores, targets[:, None], axis=1)[:, 0]
    return float(losses.sum() + 0.5 * _PRIOR * ((point - prior) ** 2).sum())


def _derivatives(
    logs: np.ndarray, targets: np.ndarray, point: np.ndarray, prior: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    shares = _softmax(point[0] * logs + point[1:])
    excess = shares.copy()
    excess[np.arange(len(targets)), targets] -= 1.0
    gradient = np.concatenate([[(excess * logs).sum()], excess.sum(axis=0)]) + _PRIOR * (point - prior)
    expected = (shares * logs).sum(axis=1, keepdims=True)
    centred = shares * (logs - expected)
    curvature = _PRIOR * np.eye(len(point))
    curvature[0, 0] += (centred * logs).sum()
    curvature[0, 1:] += centred.sum(axis=0)
    curvature[1:, 0] += centred.sum(axis=0)
    curvature[1:, 1:] += np.diag(shares.sum(axis=0)) - shares.T @ shares
    return gradient, curvature


def _softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def calibration_curve(
    task: Task, estimates: np.ndarray, targets: np.ndarray, bins: int = 10
) -> dict[str, list[float] | list[int]]:
    """What was predicted against what was observed, in bins of about equal count.

    Equal estimates share a bin. Several classes or labels are pooled, each against the rest.

    Returns:
        "predicted" and "observed" (means) and "count", a number for each bin.

    Raises:
        RequestError: the task has no probabilities, or `bins` is below one.
    """
    if bins < 1:
        message = f"The calibration curve of task '{task.name}' was asked for with bins={bins}; pass at least 1."
        raise RequestError(message)
    predicted, happened = _pooled(task, np.asarray(estimates, dtype=np.float64), np.asarray(targets))
    if len(predicted) == 0:
        return {"predicted": [], "observed": [], "count": []}
    ordered = np.sort(predicted)
    edges = np.unique(ordered[(np.arange(1, bins) * len(ordered)) // bins])
    places = np.searchsorted(edges, predicted, side="right")
    counts = np.bincount(places, minlength=len(edges) + 1)
    filled = counts > 0
    means = np.bincount(places, predicted, len(counts))[filled] / counts[filled]
    shares = np.bincount(places, happened, len(counts))[filled] / counts[filled]
    return {"predicted": means.tolist(), "observed": shares.tolist(), "count": counts[filled].tolist()}


def calibration_error(task: Task, estimates: np.ndarray, targets: np.ndarray, bins: int = 10) -> float:
    """The expected calibration error: the mean over rows of |predicted − observed| of their bin; NaN without rows."""
    curve = calibration_curve(task, estimates, targets, bins)
    gaps = np.abs(np.array(curve["predicted"]) - np.array(curve["observed"]))
    return float(_metrics.weighted_mean(gaps, np.array(curve["count"], dtype=np.float64)[None])[0])


def _pooled(task: Task, estimates: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(task, Binary):
        return estimates, (targets > 0.5).astype(np.float64)
    if isinstance(task, Multilabel):
        known = ~np.isnan(targets)
        return estimates[known], targets[known].astype(np.float64)
    if isinstance(task, (Multiclass, Ordinal)):
        return estimates.ravel(), (targets[:, None] == np.arange(estimates.shape[1])).astype(np.float64).ravel()
    message = (
        f"Task '{task.name}' is a {task.kind} task; a calibration curve needs probabilities. "
        "Ask for it for binary, multiclass, multilabel and ordinal tasks only."
    )
    raise RequestError(message)
