"""One of several classes without an order."""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from motet.tasks import _metrics
from motet.tasks._labels import Label, check_classes, class_indices, find_classes, label_array
from motet.tasks._links import at_least_float32, class_shares
from motet.tasks._task import Task


@dataclass(frozen=True, kw_only=True)
class Multiclass(Task):
    """One of several classes, predicted by the probability of each.

    For classes with an order take `Ordinal`; where several may hold at once take `Multilabel`. The head gives a
    logit for each class; loss = −log softmax(outputs)[class].

    Args:
        name: the task's name.
        columns: the column of the label; `(name,)` when empty.
        classes: the labels, in the order of the estimates' columns; learned by `fit` (sorted) when None.

    Example:
        >>> import numpy as np
        >>> Multiclass("grade").fit(np.array(["b", "a", "c"]), np.array([True, True, True])).classes
        ('a', 'b', 'c')
    """

    classes: tuple[Label, ...] | None = None

    kind: ClassVar[str] = "multiclass"
    metric: ClassVar[str] = "macro_roc_auc"
    higher_is_better: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_classes(self.name, self.classes)

    @property
    def num_outputs(self) -> int:
        return len(self._classes())

    @property
    def is_fitted(self) -> bool:
        return self.classes is not None

    def fit(self, values: np.ndarray, present: np.ndarray) -> Self:
        return replace(self, classes=find_classes(self.name, values, present, self.classes))

    def encode(self, values: np.ndarray, present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return class_indices(self.name, self._classes(), values, present)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self.check_shapes(outputs, targets)
        return torch.nn.functional.cross_entropy(at_least_float32(outputs), targets.long(), reduction="none")

    def estimate(self, outputs: Tensor) -> Tensor:
        return torch.softmax(at_least_float32(outputs), dim=1)

    def read(self, estimates: np.ndarray) -> np.ndarray:
        return label_array(self._classes())[np.argmax(estimates, axis=1)]

    def baseline(self, targets: np.ndarray) -> np.ndarray:
        return class_shares(targets, self.num_outputs)[None]

    def initial_outputs(self, targets: np.ndarray) -> np.ndarray:
        return np.log(self.baseline(targets)[0])

    def score(self, estimates: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        return _metrics.macro_roc_auc(estimates, targets, weights)

    def metrics(self, estimates: np.ndarray, targets: np.ndarray) -> dict[str, float]:
        readings = np.argmax(estimates, axis=1)
        return {
            "macro_roc_auc": float(_metrics.macro_roc_auc(estimates, targets)[0]),
            "log_loss": float(_metrics.log_loss(estimates, targets)[0]),
            "accuracy": float(_metrics.accuracy(readings, targets)[0]),
            "macro_f1": _metrics.macro_f1(_metrics.confusion(readings, targets, estimates.shape[1])),
        }

    def _classes(self) -> tuple[Label, ...]:
        self.check_fitted()
        return self.classes or ()
