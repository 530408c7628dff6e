"""A number to predict, by its mean."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from motet.tasks import _metrics
from motet.tasks._links import at_least_float32
from motet.tasks._standardised import Standardised


@dataclass(frozen=True, kw_only=True)
class Regression(Standardised):
    """A number, predicted by its mean, in its own unit.

    For counts of rare things take `Count`; for a range rather than a mean take `Quantile`. The head works on
    standardised targets: loss = ½·(output − (target − center)/scale)².

    Args:
        name: the task's name.
        columns: the column of the label; `(name,)` when empty.
        unit: the label's unit, for reports.
        center: what is subtracted from the label; learned by `fit` (the mean) when None.
        scale: what the label is divided by, positive; learned by `fit` (the standard deviation) when None.

    Example:
        >>> import numpy as np
        >>> task = Regression("price", unit="EUR").fit(np.array([1.0, 3.0]), np.array([True, True]))
        >>> task.center, task.scale
        (2.0, 1.0)
    """

    kind: ClassVar[str] = "regression"
    metric: ClassVar[str] = "rmse"

    @property
    def num_outputs(self) -> int:
        return 1

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self.check_shapes(outputs, targets)
        outputs = at_least_float32(outputs)
        center, scale = self.standard()
        return 0.5 * (outputs[:, 0] - (targets.to(outputs.dtype) - center) / scale) ** 2

    def estimate(self, outputs: Tensor) -> Tensor:
        center, scale = self.standard()
        return at_least_float32(outputs)[:, 0] * scale + center

    def read(self, estimates: np.ndarray) -> np.ndarray:
        return np.asarray(estimates)

    def baseline(self, targets: np.ndarray) -> np.ndarray:
        return np.array([np.mean(targets, dtype=np.float64)])

    def initial_outputs(self, targets: np.ndarray) -> np.ndarray:
        center, scale = self.standard()
        return (self.baseline(targets) - center) / scale

    def score(self, estimates: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        return _metrics.rmse(estimates, targets, weights)

    def metrics(self, estimates: np.ndarray, targets: np.ndarray) -> dict[str, float]:
        return {
            "rmse": float(_metrics.rmse(estimates, targets)[0]),
            "mae": float(_metrics.mae(estimates, targets)[0]),
            "r2": float(_metrics.r2(estimates, targets)[0]),
        }
