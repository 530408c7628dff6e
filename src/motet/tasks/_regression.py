"""A number to predict, by its mean."""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
from torch import Tensor

from motet._errors import RequestError
from motet.tasks import _metrics
from motet.tasks._labels import center_and_scale, check_any, label_numbers
from motet.tasks._links import at_least_float32
from motet.tasks._task import Task


@dataclass(frozen=True, kw_only=True)
class Regression(Task):
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

    unit: str = ""
    center: float | None = None
    scale: float | None = None

    kind: ClassVar[str] = "regression"
    metric: ClassVar[str] = "rmse"
    higher_is_better: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_scale(self.name, self.scale)

    @property
    def num_outputs(self) -> int:
        return 1

    @property
    def is_fitted(self) -> bool:
        return self.center is not None and self.scale is not None

    def fit(self, values: np.ndarray, present: np.ndarray) -> Self:
        labels, known = label_numbers(self.name, values, present)
        check_any(self.name, known)
        center, scale = center_and_scale(self.name, labels[known])
        return replace(
            self,
            center=center if self.center is None else self.center,
            scale=scale if self.scale is None else self.scale,
        )

    def encode(self, values: np.ndarray, present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        labels, known = label_numbers(self.name, values, present)
        return labels.astype(np.float32), known

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self.check_shapes(outputs, targets)
        outputs = at_least_float32(outputs)
        center, scale = self._standard()
        return 0.5 * (outputs[:, 0] - (targets.to(outputs.dtype) - center) / scale) ** 2

    def estimate(self, outputs: Tensor) -> Tensor:
        center, scale = self._standard()
        return at_least_float32(outputs)[:, 0] * scale + center

    def read(self, estimates: np.ndarray) -> np.ndarray:
        return np.asarray(estimates)

    def baseline(self, targets: np.ndarray) -> np.ndarray:
        return np.array([np.mean(targets, dtype=np.float64)])

    def initial_outputs(self, targets: np.ndarray) -> np.ndarray:
        center, scale = self._standard()
        return (self.baseline(targets) - center) / scale

    def score(self, estimates: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        return _metrics.rmse(estimates, targets, weights)

    def metrics(self, estimates: np.ndarray, targets: np.ndarray) -> dict[str, float]:
        return {
            "rmse": float(_metrics.rmse(estimates, targets)[0]),
            "mae": float(_metrics.mae(estimates, targets)[0]),
            "r2": float(_metrics.r2(estimates, targets)[0]),
        }

    def _standard(self) -> tuple[float, float]:
        self.check_fitted()
        return self.center or 0.0, self.scale or 1.0


def check_scale(name: str, scale: float | None) -> None:
    """Refuses a scale that is not positive.

    Raises:
        RequestError: see above.
    """
    if scale is not None and not (np.isfinite(scale) and scale > 0):
        message = (
            f"Task '{name}' has scale={scale!r}; a positive number was expected. Leave it out to learn it from rows."
        )
        raise RequestError(message)
