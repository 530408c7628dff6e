"""A number to predict, by a range."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from motet._errors import RequestError
from motet.tasks import _metrics
from motet.tasks._links import at_least_float32, inverse_softplus
from motet.tasks._standardised import Standardised


@dataclass(frozen=True, kw_only=True)
class Quantile(Standardised):
    """A number, predicted by several of its quantiles, in its own unit.

    For the mean alone take `Regression`. The head gives the level nearest one half as it is and the steps to the
    others through a softplus, so that quantiles never cross; loss = the mean over the levels q of
    max(q·e, (q − 1)·e), with e the standardised target less the standardised quantile.

    Args:
        name: the task's name.
        columns: the column of the label; `(name,)` when empty.
        unit: the label's unit, for reports.
        center: what is subtracted from the label; learned by `fit` (the mean) when None.
        scale: what the label is divided by, positive; learned by `fit` (the standard deviation) when None.
        levels: rising levels between zero and one.

    Example:
        >>> import numpy as np
        >>> task = Quantile("delay", unit="min").fit(np.array([0.0, 5.0, 10.0]), np.array([True, True, True]))
        >>> task.read(np.array([[1.0, 4.0, 9.0]]))
        array([4.])
    """

    levels: tuple[float, ...] = (0.1, 0.5, 0.9)

    kind: ClassVar[str] = "quantile"
    metric: ClassVar[str] = "pinball"

    def __post_init__(self) -> None:
        super().__post_init__()
        rising = all(low < high for low, high in zip(self.levels, self.levels[1:], strict=False))
        if not self.levels or not rising or not (self.levels[0] > 0 and self.levels[-1] < 1):
            message = (
                f"Task '{self.name}' has levels={self.levels!r}; rising numbers between 0 and 1 were expected, "
                "such as (0.1, 0.5, 0.9). Sort them and leave out repetitions."
            )
            raise RequestError(message)

    @property
    def middle(self) -> int:
        """The index of the level nearest one half."""
        return min(range(len(self.levels)), key=lambda index: abs(self.levels[index] - 0.5))

    @property
    def num_outputs(self) -> int:
        return len(self.levels)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self.check_shapes(outputs, targets)
        raw = at_least_float32(outputs)
        center, scale = self.standard()
        errors = ((targets.to(raw.dtype) - center) / scale)[:, None] - self._ordered(raw)
        level_Q = torch.tensor(self.levels, dtype=raw.dtype, device=raw.device)
        return torch.maximum(level_Q * errors, (level_Q - 1) * errors).mean(dim=1)

    def estimate(self, outputs: Tensor) -> Tensor:
        center, scale = self.standard()
        return self._ordered(at_least_float32(outputs)) * scale + center

    def read(self, estimates: np.ndarray) -> np.ndarray:
        return np.asarray(estimates)[:, self.middle]

    def baseline(self, targets: np.ndarray) -> np.ndarray:
        return np.quantile(np.asarray(targets, dtype=np.float64), self.levels)[None]

    def initial_outputs(self, targets: np.ndarray) -> np.ndarray:
        center, scale = self.standard()
        standard = (self.baseline(targets)[0] - center) / scale
        # Quantiles of labels with many ties coincide; a step below 0.01 would start where a softplus has no slope.
        steps = inverse_softplus(np.maximum(np.diff(standard), 0.01))
        middle = self.middle
        return np.concatenate([steps[:middle], standard[middle : middle + 1], steps[middle:]])

    def score(self, estimates: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        return _metrics.pinball(estimates, targets, self.levels, weights)

    def metrics(self, estimates: np.ndarray, targets: np.ndarray) -> dict[str, float]:
        estimates, targets = np.asarray(estimates), np.asarray(targets)
        inside = np.asarray((estimates[:, 0] <= targets) & (targets <= estimates[:, -1]))
        crossed = np.asarray((np.diff(estimates, axis=1) < 0).any(axis=1))
        return {
            "pinball": float(_metrics.pinball(estimates, targets, self.levels)[0]),
            "coverage": float(_metrics.weighted_mean(inside)[0]),
            "crossing_rate": float(_metrics.weighted_mean(crossed)[0]),
        }

    def _ordered(self, raw: Tensor) -> Tensor:
        """Standardised quantiles (B, Q): one addition after another, since rounding keeps the order of such sums."""
        steps = softplus(raw)
        quantiles = [raw[:, self.middle]]
        for index in range(self.middle + 1, len(self.levels)):
            quantiles.append(quantiles[-1] + steps[:, index])
        for index in reversed(range(self.middle)):
            quantiles.insert(0, quantiles[0] - steps[:, index])
        return torch.stack(quantiles, dim=1)
