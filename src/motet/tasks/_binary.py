"""Yes or no."""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from motet._errors import RequestError, suggest
from motet.tasks import _metrics
from motet.tasks._labels import Label, check_classes, class_indices, find_classes, label_array
from motet.tasks._links import at_least_float32, class_shares, logit
from motet.tasks._task import Task

# Words that mean yes; among numbers and booleans the larger one is the positive.
_POSITIVE_WORDS = frozenset({"1", "yes", "y", "true", "t", "positive", "pos"})


@dataclass(frozen=True, kw_only=True)
class Binary(Task):
    """One of two labels, predicted by the probability of the positive one.

    The head gives the log odds; loss = −log of the probability of the label.

    Args:
        name: the task's name.
        columns: the column of the label; `(name,)` when empty.
        classes: the two labels, the positive one second; learned by `fit` when None: sorted, so that True and 1 come
            second, and of two words "1", "yes", "y", "true", "t", "positive" or "pos" in any case does.
        positive: which of the two is the positive one, where that is not so.

    Example:
        >>> import numpy as np
        >>> Binary("churned").fit(np.array(["Yes", "no", "no"]), np.array([True, True, True])).classes
        ('no', 'Yes')
    """

    classes: tuple[Label, ...] | None = None
    positive: Label | None = None

    kind: ClassVar[str] = "binary"
    metric: ClassVar[str] = "roc_auc"
    higher_is_better: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_classes(self.name, self.classes)
        if self.classes is not None:
            self._check_two(self.classes)
            if self.positive is not None:
                object.__setattr__(self, "classes", self._with_positive(self.classes, self.positive))

    @property
    def num_outputs(self) -> int:
        return 1

    @property
    def is_fitted(self) -> bool:
        return self.classes is not None

    def fit(self, values: np.ndarray, present: np.ndarray) -> Self:
        classes = find_classes(self.name, values, present, self.classes)
        self._check_two(classes)
        if self.classes is None and self.positive is None and _means_yes(classes[0]) and not _means_yes(classes[1]):
            classes = classes[::-1]
        return replace(self, classes=classes)

    def encode(self, values: np.ndarray, present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        indices, known = class_indices(self.name, self._classes(), values, present)
        return indices.astype(np.float32), known

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self.check_shapes(outputs, targets)
        logits = at_least_float32(outputs)[:, 0]
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), reduction="none")

    def estimate(self, outputs: Tensor) -> Tensor:
        return torch.sigmoid(at_least_float32(outputs)[:, 0])

    def read(self, estimates: np.ndarray) -> np.ndarray:
        return label_array(self._classes())[(np.asarray(estimates) > 0.5).astype(np.int64)]

    def baseline(self, targets: np.ndarray) -> np.ndarray:
        return class_shares(targets, 2)[1:]

    def initial_outputs(self, targets: np.ndarray) -> np.ndarray:
        return logit(self.baseline(targets))

    def score(self, estimates: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        return _metrics.roc_auc(estimates, targets > 0.5, weights)

    def metrics(self, estimates: np.ndarray, targets: np.ndarray) -> dict[str, float]:
        happened = np.asarray(targets) > 0.5
        return {
            "roc_auc": float(_metrics.roc_auc(estimates, happened)[0]),
            "log_loss": float(_metrics.binary_log_loss(estimates, happened)[0]),
            "accuracy": float(_metrics.accuracy(np.asarray(estimates) > 0.5, happened)[0]),
            "average_precision": _metrics.average_precision(estimates, happened),
            "brier": float(_metrics.brier(estimates, happened)[0]),
        }

    def _classes(self) -> tuple[Label, ...]:
        self.check_fitted()
        return self.classes or ()

    def _check_two(self, classes: tuple[Label, ...]) -> None:
        if len(classes) != 2:
            shown = ", ".join(repr(label) for label in classes[:5]) + (", ..." if len(classes) > 5 else "")
            message = (
                f"Task '{self.name}' has {len(classes)} different labels ({shown}); a binary task expects two. "
                f"Declare '{self.name}:multiclass', or make the other labels null."
            )
            raise RequestError(message)

    def _with_positive(self, classes: tuple[Label, ...], positive: Label) -> tuple[Label, ...]:
        if positive not in classes:
            message = (
                f"Task '{self.name}' has positive={positive!r}; one of its labels {classes[0]!r} and {classes[1]!r} "
                f"was expected.{suggest(str(positive), map(str, classes))}"
            )
            raise RequestError(message)
        return classes if classes[1] == positive else classes[::-1]


def _means_yes(label: Label) -> bool:
    return isinstance(label, str) and label.strip().casefold() in _POSITIVE_WORDS
