"""What a task is: the contract that every kind of task fills."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, fields, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from motet._errors import RequestError

# Three forms of an answer, in the order in which it is made:
#   outputs    what a head gives: a tensor (B, num_outputs) of raw numbers, no constraint
#   estimates  probabilities, or values in the target's own unit: an array (B,) or (B, K); every
#              candidate (network, boosting) gives these, and metrics and calibration read them
#   readings   what a person reads: a label or a number for each row


@dataclass(frozen=True)
class Task(ABC):
    """One thing to predict. Frozen: `fit` returns a copy that has learned its classes or scale from training rows.

    Args:
        name: what the task is called in losses, outputs, files and reports.
        columns: the table's columns that hold the label; `(name,)` when empty.
    """

    name: str
    _: KW_ONLY
    columns: tuple[str, ...] = ()

    kind: ClassVar[str]
    metric: ClassVar[str]
    higher_is_better: ClassVar[bool]

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            message = f"A task has the name {self.name!r}; a name is text that is not empty. Name the task."
            raise RequestError(message)
        if isinstance(self.columns, str):
            message = (
                f"Task '{self.name}' has columns={self.columns!r}; a tuple of column names was expected. "
                f"Write columns=({self.columns!r},)."
            )
            raise RequestError(message)
        for field in fields(self):
            object.__setattr__(self, field.name, _frozen(getattr(self, field.name)))

    @property
    def label_columns(self) -> tuple[str, ...]:
        """The table's columns that hold this task's label."""
        return self.columns or (self.name,)

    @property
    @abstractmethod
    def num_outputs(self) -> int:
        """How many raw outputs a head of this task has; known once the task is fitted."""

    @property
    @abstractmethod
    def is_fitted(self) -> bool:
        """Whether classes, centre and scale are known."""

    @abstractmethod
    def fit(self, values: np.ndarray, present: np.ndarray) -> Self:
        """Learns what the task needs (classes, centre and scale) from the training rows' labels.

        What was declared, or learned before, stays.

        Args:
            values: (N,) labels of the table's own type, or (N, L) for several label columns; anything where absent.
            present: (N,) bool, true where the row has a label.

        Raises:
            RequestError: no label present, a constant label, or labels of the wrong type.
        """

    @abstractmethod
    def encode(self, values: np.ndarray, present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Turns labels into targets: float32 (N,) or (N, L), or int64 class indices (N,); zero where absent.

        A multilabel task's targets are NaN where one label of a row that has others is missing.

        Returns:
            targets, and `present` made narrower where a label is not one that training rows had.
        """

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of each row, (B,), from raw outputs (B, num_outputs) and targets as `encode` gives them."""

    @abstractmethod
    def estimate(self, outputs: Tensor) -> Tensor:
        """Raw outputs to probabilities, or to values in the target's unit."""

    @abstractmethod
    def read(self, estimates: np.ndarray) -> np.ndarray:
        """Estimates to what a person reads, one label or number a row."""

    @abstractmethod
    def baseline(self, targets: np.ndarray) -> np.ndarray:
        """The estimate of the best constant, (1,) or (1, K), from the training rows' present targets."""

    @abstractmethod
    def initial_outputs(self, targets: np.ndarray) -> np.ndarray:
        """Raw outputs (num_outputs,) whose estimate is the baseline: where a head's bias starts."""

    @abstractmethod
    def score(self, estimates: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        """The main metric, on rows that have a label.

        Args:
            estimates: (N,) or (N, K).
            targets: (N,) or (N, L), as `encode` gives them.
            weights: (R, N) row weights of R resamples, or None for one score with equal weights.

        Returns:
            (R,) scores, or (1,) without weights; NaN where the metric is not defined (one class only).
        """

    @abstractmethod
    def metrics(self, estimates: np.ndarray, targets: np.ndarray) -> dict[str, float]:
        """Every metric of this kind of task by name, the main one among them."""

    def decode(self, outputs: Tensor) -> np.ndarray:
        """Raw outputs to what a person reads."""
        return self.read(self.estimate(outputs.detach()).cpu().numpy())

    def masked_loss(self, outputs: Tensor, targets: Tensor, present: Tensor) -> Tensor:
        """The mean loss over the rows that have a label: a scalar, zero (with a zero gradient) where none has one."""
        losses = self.loss(outputs, targets)
        kept = torch.where(present, losses, torch.zeros_like(losses))
        return kept.sum() / present.sum().clamp(min=1)

    def check_fitted(self) -> None:
        """Refuses to go on before `fit`.

        Raises:
            RequestError: the task has not learned its classes or its scale.
        """
        if not self.is_fitted:
            message = (
                f"Task '{self.name}' ({self.kind}) is used before it is fitted, so its classes or its scale are not "
                "known. Call task = task.fit(values, present) with the training rows' labels first."
            )
            raise RequestError(message)

    def check_shapes(self, outputs: Tensor, targets: Tensor, width: int | None = None) -> None:
        """Refuses outputs that are not (B, num_outputs), and targets that are not (B,), or (B, width) with a width.

        Raises:
            RequestError: a shape is wrong, or the task is not fitted.
        """
        self.check_fitted()
        batch = outputs.shape[0] if outputs.ndim else 0
        wanted = (batch,) if width is None else (batch, width)
        if tuple(outputs.shape) != (batch, self.num_outputs):
            message = (
                f"Task '{self.name}' has outputs of shape {tuple(outputs.shape)}; this {self.kind} task expects "
                f"(B, {self.num_outputs}). Give its head num_outputs={self.num_outputs}."
            )
            raise RequestError(message)
        if tuple(targets.shape) != wanted:
            message = (
                f"Task '{self.name}' has targets of shape {tuple(targets.shape)}; this {self.kind} task expects "
                f"{wanted} for {batch} rows of outputs. Pass the targets as task.encode gives them."
            )
            raise RequestError(message)

    def to_dict(self) -> dict[str, Any]:
        """The task as plain JSON data; `motet.tasks.from_dict` is the way back."""
        return {"kind": self.kind} | {field.name: _plain(getattr(self, field.name)) for field in fields(self)}

    def renamed(self, name: str) -> Self:
        """A copy under another name, reading the same columns."""
        return replace(self, name=name, columns=self.label_columns)


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    return value


def _frozen(value: object) -> object:
    """Lists become tuples and numpy scalars Python ones, so that a task hashes, compares and prints as code."""
    if isinstance(value, (list, tuple, np.ndarray)):
        return tuple(_frozen(item) for item in value)
    return value.item() if isinstance(value, np.generic) else value


def fields_from(data: Mapping[str, Any], kind: type[Task]) -> dict[str, Any]:
    """The keyword arguments that rebuild a task of `kind` from `Task.to_dict`'s data."""
    known = {field.name for field in fields(kind)}
    return {key: _tuples(value) for key, value in data.items() if key in known}


def _tuples(value: object) -> object:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
