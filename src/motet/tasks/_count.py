"""How often something happens."""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from motet._errors import RequestError, suggest
from motet.tasks import _metrics
from motet.tasks._labels import check_any, check_varies, label_numbers
from motet.tasks._links import at_least_float32
from motet.tasks._standardised import check_scale
from motet.tasks._task import Task

_FAMILIES = ("poisson", "negative_binomial")
_BEND = 10.0  # the raw output above which the mean grows as a line: e^10 is 22,000 times the training mean
_LOWEST = -30.0  # the raw output below which the estimate stays, so that it is positive
_SPREAD = 10.0  # bound of the log of the negative binomial's size


@dataclass(frozen=True, kw_only=True)
class Count(Task):
    """A count 0, 1, 2, …, predicted by its mean.

    For numbers that may be negative or fractional take `Regression`. The head gives the log of the mean over the
    training mean (`scale`); where that raw output exceeds 10 the mean goes on as a straight line, so that neither it
    nor its gradient overflows. Both losses are negative log likelihoods, the Poisson one divided by the scale where
    that is above one: it weighs as a variance of `scale` times the mean would, has the same best mean, and keeps a
    task with large counts from drowning the others. The negative binomial's second output is the log of its size r
    (variance μ + μ²/r), bounded by 10·tanh(output / 10).

    Args:
        name: the task's name.
        columns: the column of the label; `(name,)` when empty.
        family: "poisson", or "negative_binomial" where counts vary more than their mean.
        unit: what is counted, for reports.
        scale: the training mean, positive; learned by `fit` when None.

    Example:
        >>> import numpy as np
        >>> Count("visits").fit(np.array([0, 1, 5]), np.array([True, True, True])).scale
        2.0
    """

    family: str = "poisson"
    unit: str = ""
    scale: float | None = None

    kind: ClassVar[str] = "count"
    metric: ClassVar[str] = "poisson_deviance"
    higher_is_better: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_scale(self.name, self.scale)
        if self.family not in _FAMILIES:
            message = (
                f"Task '{self.name}' has family={self.family!r}; 'poisson' or 'negative_binomial' was expected."
                f"{suggest(str(self.family), _FAMILIES)}"
            )
            raise RequestError(message)

    @property
    def num_outputs(self) -> int:
        return 1 if self.family == "poisson" else 2

    @property
    def is_fitted(self) -> bool:
        return self.scale is not None

    def fit(self, values: np.ndarray, present: np.ndarray) -> Self:
        counts, known = self._counts(values, present)
        check_any(self.name, known)
        check_varies(self.name, counts[known])
        return replace(self, scale=float(counts[known].mean()) if self.scale is None else self.scale)

    def encode(self, values: np.ndarray, present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        counts, known = self._counts(values, present)
        return counts.astype(np.float32), known

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self.check_shapes(outputs, targets)
        raw = at_least_float32(outputs)
        scale = self._scale()
        mean, log_mean = _mean(raw[:, 0], scale)
        if self.family == "negative_binomial":
            return _negative_binomial(mean, log_mean, raw[:, 1], targets)
        counts = targets.to(raw.dtype)
        return (mean - counts * log_mean + torch.lgamma(counts + 1)) / max(scale, 1.0)

    def estimate(self, outputs: Tensor) -> Tensor:
        return _mean(at_least_float32(outputs)[:, 0].clamp(min=_LOWEST), self._scale())[0]

    def read(self, estimates: np.ndarray) -> np.ndarray:
        return np.asarray(estimates)

    def baseline(self, targets: np.ndarray) -> np.ndarray:
        # Half an event where rows have none, so that the logarithm of the mean exists.
        total = np.sum(targets, dtype=np.float64)
        return np.array([max(total, 0.5) / max(len(targets), 1)])

    def initial_outputs(self, targets: np.ndarray) -> np.ndarray:
        mean = float(self.baseline(targets)[0])
        first = np.log(mean / self._scale())
        if self.family == "poisson":
            return np.array([first])
        # The size by moments, away from the bound's flat ends.
        excess = max(float(np.var(targets, dtype=np.float64)) - mean, mean**2 * 1e-3)
        size = np.clip(np.log(mean**2 / excess), -5.0, 5.0)
        return np.array([first, _SPREAD * np.arctanh(size / _SPREAD)])

    def score(self, estimates: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        return _metrics.poisson_deviance(estimates, targets, weights)

    def metrics(self, estimates: np.ndarray, targets: np.ndarray) -> dict[str, float]:
        return {
            "poisson_deviance": float(_metrics.poisson_deviance(estimates, targets)[0]),
            "rmse": float(_metrics.rmse(estimates, targets)[0]),
            "mae": float(_metrics.mae(estimates, targets)[0]),
            "r2": float(_metrics.r2(estimates, targets)[0]),
        }

    def _scale(self) -> float:
        self.check_fitted()
        return self.scale or 1.0

    def _counts(self, values: np.ndarray, present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        counts, known = label_numbers(self.name, values, present)
        strange = counts[(counts < 0) | (counts != np.floor(counts))]
        if len(strange):
            message = (
                f"Task '{self.name}' has the label {float(strange[0])!r} ({len(strange)} such rows); a count task "
                f"expects whole numbers from zero. Make these labels null, or declare '{self.name}:regression'."
            )
            raise RequestError(message)
        return counts, known


def _mean(raw: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """The mean (B,) and its logarithm: exponential in the raw output up to the bend, a line of the same slope after."""
    low, high = raw.clamp(max=_BEND), (raw - _BEND).clamp(min=0)
    return scale * low.exp() * (1 + high), low + torch.log1p(high) + float(np.log(scale))


def _negative_binomial(mean: Tensor, log_mean: Tensor, raw_size: Tensor, targets: Tensor) -> Tensor:
    """−log of the negative binomial's probability, in float64: it takes the difference of large lgammas."""
    mean, log_mean, counts = mean.double(), log_mean.double(), targets.double()
    log_size = _SPREAD * torch.tanh(raw_size.double() / _SPREAD)
    size = log_size.exp()
    log_total = torch.logaddexp(log_mean, log_size)
    ways = torch.lgamma(counts + size) - torch.lgamma(size) - torch.lgamma(counts + 1)
    likelihood = ways + size * (log_size - log_total) + counts * (log_mean - log_total)
    return -likelihood.to(raw_size.dtype)
