"""Intervals that hold the label as often as they say, by split conformal prediction."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from motet._errors import RequestError
from motet.tasks._count import Count
from motet.tasks._quantile import Quantile
from motet.tasks._regression import Regression
from motet.tasks._task import Task

MIN_ROWS = 20  # fewer labelled rows than this get no interval
_SMALL = 0.1  # added to a count's mean before the root, so that a mean near zero keeps a width


@dataclass(frozen=True)
class Interval:
    """A map of estimates to a range that holds a new row's label with probability `level` or more.

    The promise is for rows exchangeable with those it was fitted on, on average over rows.

    Args:
        method: "absolute", estimate ± radius; "scaled", mean ± radius·√(mean + 0.1), from zero up; "quantile",
            the outer quantiles moved out by the radius (in where it is negative).
        level: the share of rows that the interval holds.
        radius: in the label's unit, except for "scaled".
    """

    method: str
    level: float
    radius: float

    def bounds(self, estimates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The low and the high ends (N,), in the label's unit."""
        estimates = np.asarray(estimates, dtype=np.float64)
        if self.method == "quantile":
            low, high = estimates[:, 0] - self.radius, estimates[:, -1] + self.radius
            middle = 0.5 * (low + high)
            return np.minimum(low, middle), np.maximum(high, middle)
        if self.method == "scaled":
            width = self.radius * np.sqrt(np.maximum(estimates, 0.0) + _SMALL)
            return np.maximum(estimates - width, 0.0), estimates + width
        return estimates - self.radius, estimates + self.radius

    def to_dict(self) -> dict[str, Any]:
        """The interval as plain JSON data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Interval":
        """The way back from `to_dict`."""
        return cls(str(data["method"]), float(data["level"]), float(data["radius"]))


def fit_interval(task: Task, estimates: np.ndarray, targets: np.ndarray, *, level: float = 0.9) -> Interval | None:
    """Fits an interval on held-out rows that have a label.

    The radius is the k-th smallest error of the n rows, with k = ⌈(n + 1)·level⌉.

    Args:
        task: the fitted task.
        estimates: (N,), or (N, Q) of a quantile task.
        targets: (N,) as `task.encode` gives them.
        level: between zero and one.

    Returns:
        The interval; None for tasks with classes, for under 20 rows, and where k exceeds n.

    Raises:
        RequestError: `level` is not between zero and one.

    Source:
        Lei, G'Sell, Rinaldo, Tibshirani and Wasserman, JASA 2018 (split conformal); Romano, Patterson and Candès,
        NeurIPS 2019 (quantiles). Departure: a count's errors are divided by √(mean + 0.1).
    """
    if not 0 < level < 1:
        message = (
            f"The interval of task '{task.name}' was asked for with level={level!r}; pass a number between 0 and 1."
        )
        raise RequestError(message)
    found = _errors(task, np.asarray(estimates, dtype=np.float64), np.asarray(targets, dtype=np.float64))
    if found is None:
        return None
    method, errors = found
    # The product is rounded first: (n + 1)·level is 9.000000000000002 for some n, which would skip a row.
    rank = math.ceil(round((len(errors) + 1) * level, 9))
    if len(errors) < MIN_ROWS or rank > len(errors):
        return None
    return Interval(method, level, float(np.partition(errors, rank - 1)[rank - 1]))


def _errors(task: Task, estimates: np.ndarray, targets: np.ndarray) -> tuple[str, np.ndarray] | None:
    if isinstance(task, Regression):
        return "absolute", np.abs(targets - estimates)
    if isinstance(task, Count):
        return "scaled", np.abs(targets - estimates) / np.sqrt(np.maximum(estimates, 0.0) + _SMALL)
    if isinstance(task, Quantile):
        return "quantile", np.maximum(estimates[:, 0] - targets, targets - estimates[:, -1])
    return None
