"""MTAN-style attention: one shared network, and soft masks that each task puts on its levels."""

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from motet.models.blocks import StackedLinear
from motet.models.sharing._sharing import Sharing, steps


class TaskAttention(Sharing):
    """One shared network whose levels each task reads through a soft mask of its own.

    Cheaper than experts where there are many tasks: a task costs its masks alone. With u and p the two layers of a
    shared level, a_t = σ(V_t relu(W_t [u ; f_t(a_t of the level before)])) ⊙ p.

    Args:
        num_tasks: T.
        width: F, the size of the features it takes.
        levels: size of each level.
        reduction: how much narrower the middle of a mask's network is.

    Cost: a level of sizes F, H is B · (F · H + H²) multiplications, and about 4 · B · H² / reduction a task.

    Source: Liu et al., End-to-End Multi-Task Learning with Attention, CVPR 2019. Departures: linear layers in the place
        of convolutions, with no pooling; no batch norm, so that a row's features do not depend on its batch.
    """

    name: ClassVar[str] = "attention"

    def __init__(self, num_tasks: int, *, width: int, levels: Sequence[int] = (128, 128), reduction: int = 2) -> None:
        super().__init__(num_tasks, inputs=width, width=steps(width, levels)[-1][1])
        middles = [max(1, size // reduction) for size in levels]
        before = [0, *levels[:-1]]  # the first level has no attention before it
        self.shared = nn.ModuleList(nn.ModuleList([nn.Linear(a, b), nn.Linear(b, b)]) for a, b in steps(width, levels))
        self.carry = nn.ModuleList(StackedLinear(num_tasks, a, b) for a, b in pairwise(levels))
        self.squeeze = nn.ModuleList(
            StackedLinear(num_tasks, size + (size if old else 0), middle)
            for size, old, middle in zip(levels, before, middles, strict=True)
        )
        self.excite = nn.ModuleList(
            StackedLinear(num_tasks, middle, size) for size, middle in zip(levels, middles, strict=True)
        )

    def streams(self, features: Tensor, tasks: Sequence[int]) -> Tensor:
        """Maps (B, F) to (T, B, levels[-1])."""
        values, attended = features, features
        for number, (first, second) in enumerate(self._shared()):
            read = functional.relu(first(values))
            values = functional.relu(second(read))
            if number:
                carried = functional.relu(self.carry[number - 1](attended, tasks))
                read = torch.cat([read.expand(len(tasks), *read.shape), carried], dim=-1)
            middle = functional.relu(self.squeeze[number](read, tasks))
            attended = self.excite[number](middle, tasks).sigmoid() * values
        return attended

    def _shared(self) -> list[tuple[nn.Module, nn.Module]]:
        return [(level[0], level[1]) for level in self.shared if isinstance(level, nn.ModuleList)]
