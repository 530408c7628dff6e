"""Bottleneck adapters: a thin network on what a layer gives."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from motet._errors import RequestError
from motet.models.adapters._adapter import Adapter
from motet.models.adapters._factors import Factors
from motet.models.adapters._layer import AdapterLayer, Place


@dataclass(frozen=True)
class Bottleneck(Adapter):
    """A thin network for each task on what a layer gives: y = u + U_t relu(D_t u + c_t) + e_t with u = W x + b.

    For layers whose output wants bending, and as the sources of ScaLearn as its paper has them. Unlike low-rank updates
    of the weight it cannot be folded in. With U zero at the start the module's outputs are the base's.

    Args:
        reduction: how many times thinner than the layer's output the middle is.
        dropout: share of the layer's outputs that the network does not see in training.

    Raises:
        RequestError: the middle would have no place.

    Cost: T · (2 · m · out + m + out) parameters a layer with m = out / reduction, and as many operations for each row.

    Source: Pfeiffer et al., AdapterFusion, EACL 2021, and its released configuration: ReLU, reduction 16, after the
        last linear layer of a transformer block (choose layers accordingly). Departures: it reads the layer's own
        output, where the released code first adds the block's input and takes the block's norm; U starts at zero.

    Example:
        >>> import torch
        >>> from motet.models.adapters import Bottleneck, attach
        >>> attach(torch.nn.Linear(6, 4), Bottleneck(reduction=2), tasks=["a"]).num_parameters()
        22
    """

    name: ClassVar[str] = "bottleneck"

    reduction: int = 16
    dropout: float = 0.0

    def layers(self, places: Sequence[Place]) -> list[AdapterLayer]:
        """A thin network for each place and task."""
        return [BottleneckLayer(place, self.reduction, dropout=self.dropout) for place in places]


class BottleneckLayer(AdapterLayer):
    """The thin networks of one layer.

    Args:
        place: the layer.
        reduction: how much thinner the middle is.
        dropout: on what it reads.
    """

    reads_outputs: bool = True

    def __init__(self, place: Place, reduction: int, *, dropout: float = 0.0) -> None:
        super().__init__(place, dropout=dropout)
        width = place.layer.out_features
        if not 1 <= reduction <= width:
            message = (
                f"A reduction of {reduction} was given for layer '{place.name}' of {width} outputs; 1 to {width} "
                "leaves a middle of one number or more. Take a smaller one, or leave the layer out."
            )
            raise RequestError(message)
        middle = width // reduction
        self.down = place.normal(place.num_tasks, width, middle, mean=0.0, std=0.02)
        self.inner = place.zeros(place.num_tasks, 1, middle)
        self.up = place.zeros(place.num_tasks, middle, width)
        self.outer = place.zeros(place.num_tasks, 1, width)

    def factors(self, tasks: slice | Tensor | None) -> list[Factors]:
        """The networks of some tasks."""
        index = slice(None) if tasks is None else tasks
        return [Factors(self.down[index], self.up[index], self.inner[index], self.outer[index], relu=True)]
