"""AdaTT: every task's gate sees every task's experts, and its own come on top."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from motet._errors import RequestError
from motet.models.blocks import FixedRoute, Gate, LinearRoute, Route, SoftmaxRoute, SumRoute
from motet.models.sharing._owners import columns, owned
from motet.models.sharing._sharing import Sharing, steps


def fusion(inputs: int, owner: list[int], num_outputs: int) -> Route:
    """A gate over all experts for each output, plus a residual from the output's own experts."""
    own = owned(owner, num_outputs)
    gate = SoftmaxRoute(Gate(num_outputs, len(owner), inputs, bias=True))
    alone = len(set(owner)) == len(owner)
    residual: Route = FixedRoute(own.float()) if alone else LinearRoute(_start(own), own)
    return SumRoute(gate, residual)


def _start(own: Tensor) -> Tensor:
    """Uniform within ± √(1 / experts of the owner)."""
    bound = own.float().sum(dim=1, keepdim=True).clamp(min=1.0).rsqrt()
    return torch.empty(own.shape).uniform_(-1.0, 1.0) * bound


class AdaTTSp(Sharing):
    """A column of experts for each task; each task's gate sees all experts, and its own are added as a residual.

    For tasks of which some help each other and nobody knows which: where fusion does not help, the residual remains.
    y_t = Σ_e softmax(W_t x_t + b_t)_e u_e + Σ_(own e) v_te u_e, with v = 1 where a task has one expert.

    Args:
        num_tasks: T.
        width: F, the size of the features it takes.
        num_specific: experts of each task and level.
        levels: size of each level's experts.
        auxiliary: scales of regularising losses by name.

    Cost: B · T · num_specific · Σ in · out multiplications; all are needed for any one task.

    Source: Li et al., AdaTT: Adaptive Task-to-Task Fusion Network, KDD 2023, and its released code for the residual
        and its start. Departure: the sizes are ours, for tables.
    """

    name: ClassVar[str] = "adatt_sp"

    def __init__(
        self,
        num_tasks: int,
        *,
        width: int,
        num_specific: int = 2,
        levels: Sequence[int] = (128, 128),
        auxiliary: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(num_tasks, inputs=width, width=steps(width, levels)[-1][1])
        self.levels = columns(
            num_tasks, width, levels, num_specific=num_specific, num_shared=0, route=fusion, auxiliary=auxiliary
        )

    def streams(self, features: Tensor, tasks: Sequence[int]) -> Tensor:
        """Maps (B, F) to (T, B, levels[-1])."""
        return self.levels(features, tasks)


class AdaTT(Sharing):
    """AdaTT with shared experts besides, which have a stream, a gate and a residual of their own below the last level.

    Args:
        num_tasks: T.
        width: F, the size of the features it takes.
        num_specific: experts of each task and level.
        num_shared: shared experts of each level, one or more.
        levels: size of each level's experts.
        auxiliary: scales of regularising losses by name.

    Cost: B · (T · num_specific + num_shared) · Σ in · out multiplications; all are needed for any one task.

    Source: Li et al., AdaTT: Adaptive Task-to-Task Fusion Network, KDD 2023, general form, and its released code: the
        residual is one where all own one expert, and learned for all else. Departure: the sizes are ours, for tables.
    """

    name: ClassVar[str] = "adatt"

    def __init__(
        self,
        num_tasks: int,
        *,
        width: int,
        num_specific: int = 2,
        num_shared: int = 1,
        levels: Sequence[int] = (128, 128),
        auxiliary: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(num_tasks, inputs=width, width=steps(width, levels)[-1][1])
        if num_shared < 1:
            message = f"{num_shared} shared experts were asked for; adatt has one or more. Use adatt_sp for none."
            raise RequestError(message)
        self.levels = columns(
            num_tasks, width, levels, num_specific=num_specific, num_shared=num_shared, route=fusion,
            auxiliary=auxiliary,
        )  # fmt: skip

    def streams(self, features: Tensor, tasks: Sequence[int]) -> Tensor:
        """Maps (B, F) to (T, B, levels[-1])."""
        return self.levels(features, tasks)
