"""Cross-stitch: a network for each task, linearly mixed after each level."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from motet.models.blocks import Experts, Levels, LinearRoute, Mix
from motet.models.sharing._sharing import Sharing, steps


class CrossStitch(Sharing):
    """A column for each task; after each level every task reads a learned mixture of all columns.

    For few tasks, and where it should be seen who takes from whom: the (T, T) weights are constants of the model.
    y_t = Σ_j a_tj u_j(x_j), without input, softmax or bias.

    Args:
        num_tasks: T.
        width: F, the size of the features it takes.
        levels: size of each level's columns.
        own: how much of itself a task reads at the start; the others share the rest.

    Cost: B · T · Σ in · out multiplications. All columns are needed for any one task.

    Source: Misra et al., Cross-Stitch Networks for Multi-task Learning, CVPR 2016. Departure: one weight a column and
        not one a channel, as in the paper's first form; the 0.9 that a task begins with is recalled, not read.
    """

    name: ClassVar[str] = "cross_stitch"

    def __init__(self, num_tasks: int, *, width: int, levels: Sequence[int] = (128, 128), own: float = 0.9) -> None:
        super().__init__(num_tasks, inputs=width, width=steps(width, levels)[-1][1])
        other = (1.0 - own) / max(1, num_tasks - 1)
        start = torch.full((num_tasks, num_tasks), other).fill_diagonal_(own if num_tasks > 1 else 1.0)
        self.levels = Levels([
            Mix(Experts(num_tasks, inputs, (outputs,)), LinearRoute(start), source=range(num_tasks))
            for inputs, outputs in steps(width, levels)
        ])  # fmt: skip

    def streams(self, features: Tensor, tasks: Sequence[int]) -> Tensor:
        """Maps (B, F) to (T, B, levels[-1])."""
        return self.levels(features, tasks)
