"""What kinds of task that learn a number on a standard scale have in common."""

from abc import ABC
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from motet._errors import RequestError
from motet.tasks._labels import center_and_scale, check_any, label_numbers
from motet.tasks._task import Task


@dataclass(frozen=True, kw_only=True)
class Standardised(Task, ABC):
    """A number in its own unit, of which the head learns (target − center) / scale.

    Args:
        name: the task's name.
        columns: the column of the label; `(name,)` when empty.
        unit: the label's unit, for reports.
        center: what is subtracted from the label; learned by `fit` (the mean) when None.
        scale: what the label is divided by, positive; learned by `fit` (the standard deviation) when None.

    Raises:
        RequestError: a scale that is not positive.
    """

    unit: str = ""
    center: float | None = None
    scale: float | None = None

    higher_is_better: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_scale(self.name, self.scale)

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

    def standard(self) -> tuple[float, float]:
        """The centre and the scale.

        Raises:
            RequestError: the task is not fitted.
        """
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
