"""MTLoRA: a low-rank update for what tasks share beside one for each task."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from motet._errors import RequestError, suggest
from motet.models.adapters._adapter import Adapter
from motet.models.adapters._choose import matches
from motet.models.adapters._factors import Factors
from motet.models.adapters._layer import AdapterLayer, Place
from motet.models.adapters._lora import LowRankLayer

MODES = ("matrix", "matrixv2")


@dataclass(frozen=True)
class MTLoRA(Adapter):
    """Low-rank updates that all tasks share in every layer, and one for each task in some layers.

    For tasks that share a backbone up to a point: early layers stay common, and only the last ones of each stage are
    told apart, which costs little. A task that is chosen passes through

        y = W x + b + s B A x                      in a layer without updates of tasks
        y = W x + b + s_t B_t A_t x                in one with, mode `matrix`
        y = W x + b + s B A x + s_t B_t A_t x      in one with, mode `matrixv2`

    and a pass without a task takes the shared update everywhere.

    Args:
        rank: r of the shared update.
        task_rank: r of each task's.
        scale: s of the shared update.
        task_scale: s_t of each task's.
        dropout: share of the layer's inputs that updates do not see in training.
        mode: whether a task's update stands in the place of the shared one (`matrix`) or beside it (`matrixv2`).
        task_layers: patterns for the names of layers that have updates of tasks, separated by `|`.

    Raises:
        RequestError: there is no such mode, or no adapted layer has updates of tasks.

    Cost: r · (in + out) parameters a layer, and T · r_t · (in + out) besides in layers with updates of tasks.

    Source: Agiza et al., MTLoRA: A Low-Rank Adaptation Approach for Efficient Multi-Task Learning, CVPR 2024, and its
        released code for both modes, the dropout and the defaults (of its `config.py`; its main configuration has rank
        64, task_rank 4 and scale 4). Departures: a pass is for one task, or each row has its own, where the released
        layer carries the shared stream and all tasks' beside each other; a layer gives the same for one stream. The
        mode `addition`, learned scales and what else is trained (norms, position biases, patch embedding) are left
        out: `requires_grad_` after `attach` trains such parts.

    Example:
        >>> import torch
        >>> from motet.models.adapters import MTLoRA, attach
        >>> net = torch.nn.Sequential(torch.nn.Linear(6, 6), torch.nn.Linear(6, 4))
        >>> attach(net, MTLoRA(rank=2, task_rank=1, task_layers="1"), tasks=["a", "b"]).num_parameters()
        64
    """

    name: ClassVar[str] = "mtlora"

    rank: int = 8
    task_rank: int = 8
    scale: float = 2.0
    task_scale: float = 2.0
    dropout: float = 0.05
    mode: str = "matrix"
    task_layers: str = "*"

    def layers(self, places: Sequence[Place]) -> list[AdapterLayer]:
        """Both updates for each place, or the shared one alone."""
        if self.mode not in MODES:
            message = f"The mode '{self.mode}' was given; there is no such one.{suggest(self.mode, MODES)} Choose one."
            raise RequestError(message)
        has_own = [matches(place.name, self.task_layers) for place in places]
        if not any(has_own):
            message = (
                f"No adapted layer matches task_layers='{self.task_layers}'; there are "
                f"{', '.join(place.name for place in places[:6])}. Tasks would share everything: use LoRA for that."
            )
            raise RequestError(message)
        return [MTLoRALayer(place, self, own=own) for place, own in zip(places, has_own, strict=True)]


class MTLoRALayer(AdapterLayer):
    """The updates of one layer.

    Args:
        place: the layer.
        settings: ranks, scales and mode.
        own: whether tasks have updates here.
    """

    def __init__(self, place: Place, settings: MTLoRA, *, own: bool) -> None:
        super().__init__(place, dropout=settings.dropout, by_task=own, needs_task=False)
        self.is_beside = settings.mode == "matrixv2"
        self.shared = LowRankLayer(place, settings.rank, scale=settings.scale, shared=True)
        self.own = LowRankLayer(place, settings.task_rank, scale=settings.task_scale, shared=False) if own else None

    def factors(self, tasks: slice | Tensor | None) -> list[Factors]:
        """The shared factors, those of some tasks, or both."""
        if tasks is None or self.own is None:
            return self.shared.factors(None)
        own = self.own.factors(tasks)
        return [*self.shared.factors(None), *own] if self.is_beside else own
