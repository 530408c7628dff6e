"""LoRA: one low-rank update for all tasks, or one for each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from motet._errors import RequestError
from motet.models.adapters._adapter import Adapter
from motet.models.adapters._factors import Factors
from motet.models.adapters._layer import AdapterLayer, Place


@dataclass(frozen=True)
class LoRA(Adapter):
    """One low-rank update of each layer, which all tasks share.

    The plain thing, and what PEFT calls LoRA: for one task, or for tasks that want the same. `load_peft` and
    `save_peft` read and write PEFT's folders. y = W x + b + (α / r) B A x, with B zero at the start.

    Args:
        rank: r.
        alpha: α; the update is scaled by α / r.
        dropout: share of the layer's inputs that the update does not see in training.

    Cost: r · (in + out) parameters a layer; folded in, nothing.

    Source: Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, ICLR 2022, and its released code for the
        first values. Departure: adapters of a half-precision layer are kept in float32, as PEFT does.

    Example:
        >>> import torch
        >>> from motet.models.adapters import LoRA, attach
        >>> attach(torch.nn.Linear(6, 4), LoRA(rank=2)).num_parameters()
        20
    """

    name: ClassVar[str] = "lora"
    needs_tasks: ClassVar[bool] = False

    rank: int = 8
    alpha: float = 8.0
    dropout: float = 0.0

    def layers(self, places: Sequence[Place]) -> list[AdapterLayer]:
        """A shared low-rank update for each place."""
        scale = self.alpha / max(self.rank, 1)
        return [LowRankLayer(place, self.rank, scale=scale, shared=True, dropout=self.dropout) for place in places]


@dataclass(frozen=True)
class TaskLoRA(Adapter):
    """A low-rank update of each layer for each task, of which a pass takes one, or each row its own.

    For tasks that share nothing but the frozen base: none can harm another, and a task can be added later without
    touching the rest. y = W x + b + (α / r) B_t A_t x, with every B zero at the start.

    Args:
        rank: r of each task's update.
        alpha: α; an update is scaled by α / r.
        dropout: share of the layer's inputs that the updates do not see in training.

    Cost: T · r · (in + out) parameters a layer; folded in for one task, nothing. Rows of several tasks in one batch
        take one product with all tasks' factors side by side, T · r wide.

    Source: Hu et al., LoRA, ICLR 2022, once for each task.

    Example:
        >>> import torch
        >>> from motet.models.adapters import TaskLoRA, attach
        >>> adapters = attach(torch.nn.Linear(6, 4), TaskLoRA(rank=2), tasks=["depth", "normals"])
        >>> with adapters.using("depth"): print(tuple(adapters.module(torch.ones(3, 6)).shape))
        (3, 4)
    """

    name: ClassVar[str] = "task_lora"

    rank: int = 8
    alpha: float = 8.0
    dropout: float = 0.0

    def layers(self, places: Sequence[Place]) -> list[AdapterLayer]:
        """A low-rank update for each place and task."""
        scale = self.alpha / max(self.rank, 1)
        return [LowRankLayer(place, self.rank, scale=scale, shared=False, dropout=self.dropout) for place in places]


class LowRankLayer(AdapterLayer):
    """Low-rank updates of one layer, one that all tasks share or one for each.

    Args:
        place: the layer.
        rank: r.
        scale: of the update.
        shared: whether there is one alone.
        dropout: on what it reads.
    """

    def __init__(self, place: Place, rank: int, *, scale: float, shared: bool, dropout: float = 0.0) -> None:
        super().__init__(place, dropout=dropout, by_task=not shared, needs_task=not shared)
        place.check_rank(rank)
        if not scale > 0.0:
            message = (
                f"An update scaled by {scale:g} was asked for at layer '{place.name}'; a number above zero was "
                "expected. Give alpha (or scale) the size of the rank, say."
            )
            raise RequestError(message)
        copies, inputs = (1 if shared else place.num_tasks), place.layer.in_features
        self.scale = scale
        self.down = place.uniform(copies, inputs, rank, bound=inputs**-0.5)
        self.up = place.zeros(copies, rank, place.layer.out_features)

    def factors(self, tasks: slice | Tensor | None) -> list[Factors]:
        """The factors of some tasks, or the shared ones."""
        index = tasks if self.by_task and tasks is not None else slice(None)
        return [Factors(self.down[index], self.up[index] * self.scale)]
