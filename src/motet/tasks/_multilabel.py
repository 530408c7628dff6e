"""Several yes/no labels at once."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from motet._errors import RequestError
from motet.tasks import _metrics
from motet.tasks._labels import (
    Label,
    check_any,
    check_classes,
    constant_label,
    label_numbers,
    python_labels,
    sort_labels,
)
from motet.tasks._links import at_least_float32, logit
from motet.tasks._task import Task


@dataclass(frozen=True, kw_only=True)
class Multilabel(Task):
    """Any number of labels for each row, predicted by the probability of each.

    The labels lie in several columns of 0 and 1 (or booleans), of which any cell may be missing, or in one column of
    lists. The head gives the log odds of each label; loss = the mean of −log of the probability of what is known in
    the row. A label that is always there or never there is legal as long as another varies.

    Args:
        name: the task's name.
        columns: the columns of the labels, or the one column of lists; `(name,)` when empty.
        labels: the labels, in the order of the estimates' columns; learned by `fit` when None: the columns' names,
            or the sorted items of the lists.

    Example:
        >>> import numpy as np
        >>> task = Multilabel("genes", columns=("a", "b")).fit(np.array([[0, 1], [1, 1]]), np.array([True, True]))
        >>> task.read(np.array([[0.2, 0.9]]))[0]
        ('b',)
    """

    labels: tuple[Label, ...] | None = None

    kind: ClassVar[str] = "multilabel"
    metric: ClassVar[str] = "macro_roc_auc"
    higher_is_better: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.labels is not None and len(self.labels) > 1:
            check_classes(self.name, self.labels)
        if len(self.columns) > 1 and self.labels is not None and len(self.labels) != len(self.columns):
            message = (
                f"Task '{self.name}' has {len(self.labels)} labels for {len(self.columns)} columns; one for each "
                "column was expected. Leave labels out to take the columns' names."
            )
            raise RequestError(message)

    @property
    def num_outputs(self) -> int:
        return len(self._labels())

    @property
    def is_fitted(self) -> bool:
        return self.labels is not None

    def fit(self, values: np.ndarray, present: np.ndarray) -> Self:
        labels = self.labels or self._find_labels(np.asarray(values), np.asarray(present, dtype=bool))
        fitted = replace(self, labels=labels)
        targets, known = fitted.encode(values, present)
        check_any(self.name, known)
        rows = targets[known]
        if not ((rows == 0).any(axis=0) & (rows == 1).any(axis=0)).any():
            always = tuple(label for label, column in zip(labels, rows.T, strict=True) if not (column == 0).any())
            raise constant_label(self.name, always, len(rows))
        return fitted

    def encode(self, values: np.ndarray, present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Labels to targets float32 (N, L), NaN where one label is missing and zero in rows that have none.

        `present` may also be (N, L), false for each missing cell.
        """
        values, present = np.asarray(values), np.asarray(present, dtype=bool)
        labels = self._labels()
        targets = self._from_columns(values, present) if values.ndim == 2 else self._from_lists(values, present, labels)
        known = np.asarray((~np.isnan(targets)).any(axis=1))
        targets[~known] = 0.0
        return targets, known

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self.check_shapes(outputs, targets, self.num_outputs)
        logits = at_least_float32(outputs)
        missing = targets.isnan()
        # The zeros go in before the logarithm: a NaN behind torch.where would come back in the gradient.
        filled = torch.where(missing, torch.zeros_like(targets), targets).to(logits.dtype)
        losses = torch.nn.functional.binary_cross_entropy_with_logits(logits, filled, reduction="none")
        return torch.where(missing, torch.zeros_like(losses), losses).sum(1) / (~missing).sum(1).clamp(min=1)

    def estimate(self, outputs: Tensor) -> Tensor:
        return torch.sigmoid(at_least_float32(outputs))

    def read(self, estimates: np.ndarray) -> np.ndarray:
        labels = self._labels()
        readings = np.empty(len(estimates), dtype=object)
        for row, chosen in enumerate(np.asarray(estimates) > 0.5):
            readings[row] = tuple(label for label, yes in zip(labels, chosen, strict=True) if yes)
        return readings

    def baseline(self, targets: np.ndarray) -> np.ndarray:
        # Half a row of the side that a label lacks, as in class_shares; one half for a label that is never known.
        yes = np.maximum((targets > 0.5).sum(axis=0), 0.5)
        no = np.maximum((targets < 0.5).sum(axis=0), 0.5)
        return (yes / (yes + no))[None]

    def initial_outputs(self, targets: np.ndarray) -> np.ndarray:
        return logit(self.baseline(targets)[0])

    def score(self, estimates: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        return _metrics.label_roc_auc(estimates, targets, weights)

    def metrics(self, estimates: np.ndarray, targets: np.ndarray) -> dict[str, float]:
        known = ~np.isnan(targets)
        chosen, happened = np.asarray(estimates) > 0.5, np.asarray(targets) > 0.5
        agree = ((chosen == happened) | ~known).all(axis=1)
        return {
            "macro_roc_auc": float(_metrics.label_roc_auc(estimates, targets)[0]),
            "log_loss": float(_metrics.binary_log_loss(np.asarray(estimates)[known], happened[known])[0]),
            "micro_f1": _metrics.micro_f1(chosen[known], happened[known]),
            "subset_accuracy": float(_metrics.weighted_mean(agree)[0]),
        }

    def _labels(self) -> tuple[Label, ...]:
        self.check_fitted()
        return self.labels or ()

    def _find_labels(self, values: np.ndarray, present: np.ndarray) -> tuple[Label, ...]:
        if values.ndim == 2:
            return self.label_columns
        check_any(self.name, present)
        items = [item for row in values[present] for item in self._items(row)]
        known = {label for label in self._python(items) if label is not None}
        if not known:
            raise constant_label(self.name, (), int(present.sum()))
        return sort_labels(self.name, known)

    def _from_columns(self, values: np.ndarray, present: np.ndarray) -> np.ndarray:
        labels = self._labels()
        if values.shape[1] != len(labels) or present.shape not in (values.shape, values.shape[:1]):
            message = (
                f"Task '{self.name}' has labels of shape {values.shape} and present of shape {present.shape}; "
                f"(N, {len(labels)}) was expected for its columns, and (N,) for present. Pass a column for each label."
            )
            raise RequestError(message)
        cells = np.broadcast_to(present if present.ndim == 2 else present[:, None], values.shape)
        targets = np.full(values.shape, np.nan, dtype=np.float32)
        for column, label in enumerate(labels):
            numbers, known = label_numbers(f"{self.name}' in column '{label}", values[:, column], cells[:, column])
            strange = known & (numbers != 0) & (numbers != 1)
            if strange.any():
                message = (
                    f"Task '{self.name}' has the value {float(numbers[strange][0])!r} in column '{label}'; 0 or 1 was "
                    "expected. Make the column 0 and 1, or declare it as a task of its own."
                )
                raise RequestError(message)
            targets[known, column] = numbers[known]
        return targets

    def _from_lists(self, values: np.ndarray, present: np.ndarray, labels: tuple[Label, ...]) -> np.ndarray:
        lookup = {label: column for column, label in enumerate(labels)}
        targets = np.full((len(values), len(labels)), np.nan, dtype=np.float32)
        for row in np.flatnonzero(present):
            if _is_missing(values[row]):
                continue
            targets[row] = 0.0
            for label in self._python(self._items(values[row])):
                if label in lookup:  # a label that training rows did not have is left out, the others stay known
                    targets[row, lookup[label]] = 1.0
        return targets

    def _items(self, row: object) -> Iterable[object]:
        if _is_missing(row):
            return ()
        if isinstance(row, (str, bytes)) or not isinstance(row, Iterable):
            message = (
                f"Task '{self.name}' has the label {row!r}; a list of labels was expected in each row, or several "
                f"columns of 0 and 1. Split the text into lists, name the columns, or declare '{self.name}:multiclass'."
            )
            raise RequestError(message)
        return row

    def _python(self, items: Iterable[object]) -> list[Label | None]:
        collected = list(items)
        array = np.empty(len(collected), dtype=object)
        array[:] = collected
        return python_labels(self.name, array)


def _is_missing(row: object) -> bool:
    return row is None or (isinstance(row, float) and row != row)
