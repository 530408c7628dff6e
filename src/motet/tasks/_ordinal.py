"""One of several classes with an order."""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from motet._errors import RequestError
from motet.tasks import _metrics
from motet.tasks._labels import Label, check_classes, class_indices, find_classes, label_array
from motet.tasks._links import at_least_float32, class_shares, inverse_softplus, logit
from motet.tasks._task import Task


@dataclass(frozen=True, kw_only=True)
class Ordinal(Task):
    """One of several classes in an order, predicted by the probability of each.

    For classes without an order take `Multiclass`. The head gives C − 1 raw numbers r; the log odds of lying above
    class k are θ₀ = r₀ and θₖ = θₖ₋₁ − softplus(rₖ), so they fall with k whatever r is, and
    loss = −log(σ(θₖ₋₁) − σ(θₖ)) at the row's class k. The score is the ranked probability score.

    Args:
        name: the task's name.
        columns: the column of the label; `(name,)` when empty.
        classes: the labels from lowest to highest; learned by `fit` when None, from numbers only: the order of
            words cannot be seen.

    Example:
        >>> import numpy as np
        >>> Ordinal("stars").fit(np.array([3, 1, 2]), np.array([True, True, True])).classes
        (1, 2, 3)
    """

    classes: tuple[Label, ...] | None = None

    kind: ClassVar[str] = "ordinal"
    metric: ClassVar[str] = "rps"
    higher_is_better: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_classes(self.name, self.classes)

    @property
    def num_outputs(self) -> int:
        return len(self._classes()) - 1

    @property
    def is_fitted(self) -> bool:
        return self.classes is not None

    def fit(self, values: np.ndarray, present: np.ndarray) -> Self:
        classes = find_classes(self.name, values, present, self.classes)
        if self.classes is None and isinstance(classes[0], str) and len(classes) > 2:
            message = (
                f"Task '{self.name}' is ordinal and its labels are words, such as {classes[0]!r} and {classes[1]!r}; "
                "their order cannot be seen. Declare Ordinal with classes=(lowest, ..., highest), number the "
                f"labels, or declare '{self.name}:multiclass'."
            )
            raise RequestError(message)
        return replace(self, classes=classes)

    def encode(self, values: np.ndarray, present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return class_indices(self.name, self._classes(), values, present)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self.check_shapes(outputs, targets)
        return -_log_shares(at_least_float32(outputs)).gather(1, targets.long()[:, None])[:, 0]

    def estimate(self, outputs: Tensor) -> Tensor:
        return torch.softmax(_log_shares(at_least_float32(outputs)), dim=1)

    def read(self, estimates: np.ndarray) -> np.ndarray:
        return label_array(self._classes())[np.argmax(estimates, axis=1)]

    def baseline(self, targets: np.ndarray) -> np.ndarray:
        return class_shares(targets, len(self._classes()))[None]

    def initial_outputs(self, targets: np.ndarray) -> np.ndarray:
        shares = self.baseline(targets)[0]
        odds = logit(np.cumsum(shares[::-1])[::-1][1:])
        return np.concatenate([odds[:1], inverse_softplus(-np.diff(odds))])

    def score(self, estimates: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        return _metrics.rps(estimates, targets, weights)

    def metrics(self, estimates: np.ndarray, targets: np.ndarray) -> dict[str, float]:
        readings = np.argmax(estimates, axis=1)
        return {
            "rps": float(_metrics.rps(estimates, targets)[0]),
            "rank_mae": float(_metrics.mae(readings, targets)[0]),
            "accuracy": float(_metrics.accuracy(readings, targets)[0]),
            "weighted_kappa": _metrics.weighted_kappa(_metrics.confusion(readings, targets, estimates.shape[1])),
        }

    def _classes(self) -> tuple[Label, ...]:
        self.check_fitted()
        return self.classes or ()


def _log_shares(raw: Tensor) -> Tensor:
    """The log probability (B, C) of each class, finite for every finite raw output.

    σ(a) − σ(b) = σ(a)·σ(−b)·(1 − e^−(a−b)), and with a − b = softplus(r) the last factor is σ(r): no difference of
    nearly equal numbers is ever taken.
    """
    odds = torch.cat([raw[:, :1], raw[:, :1] - softplus(raw[:, 1:]).cumsum(dim=1)], dim=1)
    above, below = logsigmoid(odds), logsigmoid(-odds)
    middle = above[:, :-1] + below[:, 1:] + logsigmoid(raw[:, 1:])
    return torch.cat([below[:, :1], middle, above[:, -1:]], dim=1)
