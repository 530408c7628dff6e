"""What an adapter adds to one linear layer."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from motet._errors import RequestError
from motet.models.adapters._factors import Factors
from motet.models.adapters._selection import Selection


@dataclass(frozen=True)
class Place:
    """A linear layer that is to be adapted.

    Args:
        name: of the layer in its module.
        layer: the layer.
        selection: says which task a pass is for.
        generator: of first values.
    """

    name: str
    layer: nn.Linear
    selection: Selection
    generator: torch.Generator

    @property
    def num_tasks(self) -> int:
        """T."""
        return len(self.selection.tasks)

    def uniform(self, *shape: int, bound: float) -> nn.Parameter:
        """Uniform numbers between plus and minus the bound, where the layer is."""
        return self.parameter(torch.empty(shape).uniform_(-bound, bound, generator=self.generator))

    def normal(self, *shape: int, mean: float, std: float) -> nn.Parameter:
        """Normal numbers, where the layer is."""
        return self.parameter(torch.empty(shape).normal_(mean, std, generator=self.generator))

    def zeros(self, *shape: int) -> nn.Parameter:
        """Zeros, where the layer is."""
        return self.parameter(torch.zeros(shape))

    def parameter(self, values: Tensor) -> nn.Parameter:
        """The values on the layer's device."""
        weight = self.layer.weight
        # Steps of training are lost in the eight bits of a bfloat16: adapters of a half-precision layer are float32.
        dtype = weight.dtype if weight.dtype in {torch.float32, torch.float64} else torch.float32
        return nn.Parameter(values.to(device=weight.device, dtype=dtype))

    def check_rank(self, rank: int, *, outputs_only: bool = False) -> None:
        """Refuses a rank that is no low rank.

        Raises:
            RequestError: it is below one or above the layer's smaller side.
        """
        sizes = (self.layer.out_features,) if outputs_only else (self.layer.in_features, self.layer.out_features)
        if not 1 <= rank <= min(sizes):
            message = (
                f"Rank {rank} was asked for at layer '{self.name}' of {self.layer.in_features} inputs and "
                f"{self.layer.out_features} outputs; 1 to {min(sizes)} fits there. Take a rank in that range, or leave "
                "the layer out."
            )
            raise RequestError(message)


class AdapterLayer(nn.Module, ABC):
    """What is added to the outputs of one linear layer, by task.

    Args:
        place: the layer, and who says which task a pass is for.
        dropout: share of the numbers it reads that are dropped in training.
        by_task: whether tasks differ here.
        needs_task: whether a pass without a task is an error.

    Attributes:
        reads_outputs: whether it reads what the layer gives instead of what it takes.
        scale: what its `up` factor is multiplied with, for those who keep the two apart.
    """

    reads_outputs: bool = False
    scale: float = 1.0

    def __init__(self, place: Place, *, dropout: float = 0.0, by_task: bool = True, needs_task: bool = True) -> None:
        super().__init__()
        if not 0.0 <= dropout < 1.0:
            message = f"Dropout {dropout} was given; a share from 0 to below 1 was expected. Give 0.1, say."
            raise RequestError(message)
        self.place_name = place.name
        self.selection = place.selection
        self.dropout = dropout
        self.by_task = by_task
        self.needs_task = needs_task

    @abstractmethod
    def factors(self, tasks: slice | Tensor | None) -> list[Factors]:
        """The factors of some tasks, as an index into stacks of T; of none in particular where that makes sense."""

    def forward(self, inputs: Tensor, outputs: Tensor) -> Tensor:
        """Maps what the layer took (B, ..., in) and gave (B, ..., out) to what it gives now."""
        values = functional.dropout(outputs if self.reads_outputs else inputs, self.dropout, self.training)
        return outputs + self._added(values).to(outputs.dtype)

    def matrix(self, task: int | None) -> Tensor:
        """What it adds to the layer's weight for a task, (out, in).

        Raises:
            RequestError: it is not linear, or needs a task.
        """
        found = self._checked(None if task is None else slice(task, task + 1))
        return _total([factor.matrix() for factor in found])

    def pair(self, task: int | None) -> tuple[Tensor, Tensor]:
        """The update for a task as LoRA's two factors, A (R, in) and B (out, R), without `scale`.

        Raises:
            RequestError: it is not linear, or needs a task.
        """
        found = self._checked(None if task is None else slice(task, task + 1))
        for factor in found:
            factor.check_linear()
        down = torch.cat([factor.down[0] for factor in found], dim=1).T
        return down, torch.cat([factor.up[0] for factor in found]).T / self.scale

    def _added(self, values: Tensor) -> Tensor:
        task, rows = self.selection.task, self.selection.rows
        if rows is None or not self.by_task:
            found = self._checked(None if task is None else task.to(values.device))
            return _total([factor.one(values.to(factor.down.dtype)) for factor in found])
        self._check_rows(values, rows)
        rows = rows.to(values.device)
        # Factors of each row's own are the smaller ones where rows are fewer than tasks; else one wide product is.
        if rows.shape[0] < len(self.selection.tasks):
            return _total([factor.each(values.to(factor.down.dtype)) for factor in self.factors(rows)])
        return _total([factor.mixed(values.to(factor.down.dtype), rows) for factor in self.factors(slice(None))])

    def _checked(self, tasks: slice | Tensor | None) -> list[Factors]:
        if tasks is None and self.needs_task:
            message = (
                f"Layer '{self.place_name}' has an adapter for each task, and no task was chosen; there are "
                f"{', '.join(self.selection.tasks)}. Call the module inside `with adapters.using(task):`, "
                "or name the task that is to be folded in or written."
            )
            raise RequestError(message)
        return self.factors(tasks)

    def _check_rows(self, values: Tensor, rows: Tensor) -> None:
        if values.ndim < 2 or values.shape[0] != rows.shape[0]:
            message = (
                f"Layer '{self.place_name}' got numbers of shape {tuple(values.shape)}, and tasks were chosen for "
                f"{rows.shape[0]} rows; the first axis has to be the rows. Choose one task a pass for a module that "
                "moves its batch to another axis."
            )
            raise RequestError(message)


def add_update(layer: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any], outputs: Tensor) -> Tensor:
    """The forward hook of every adapted layer; without a closure, so that a copied module reads its own adapters."""
    adapter: Any = layer.adapter
    return adapter(inputs[0] if inputs else keywords["input"], outputs)


def _total(parts: Sequence[Tensor]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
