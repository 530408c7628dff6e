"""APEM: fields meet in groups through set attention, and each task's code selects what it reads of them."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from motet._errors import RequestError
from motet.models.blocks import Gate, SqueezeExcitation, TokenBlock
from motet.models.sharing._sharing import Sharing


class APEM(Sharing):
    """Groups of interacting fields that the model forms itself, each task reading them through a mask of its own.

    For rows of many fields, in any order and number, whose tasks differ in which interactions they need; the tasks
    share all weights but a code of `selector` numbers each. A block lets m learned points read the fields and the
    fields read the points, H = block(I, X), X ← block(X, H), so that all fields meet at a cost linear in their number.
    Then G learned seeds read the fields, which gives G groups; a squeeze and excitation re-weighs them to h, and the
    feature of task t is σ(V relu(U h + q_t)) ⊙ h. It reads tokens: a row (B, F) is a single one.

    Args:
        num_tasks: T.
        width: F, the size of a token.
        num_groups: G; a task's feature has G · F numbers.
        num_points: m, over which fields meet.
        num_blocks: how often they do.
        num_heads: heads of every attention; divides the width.
        hidden: size of the middle of each block's network.
        selector: size of the selector's middle, and of a task's code.

    Raises:
        RequestError: no group, point or block, or heads that do not divide the width.

    Cost: with S fields B · (4 · num_blocks + 2) · (S + m) · F · (F + hidden / 2) multiplications and less, once for
        all tasks, and B · T · selector · G · F.

    Source: Tao et al., Adaptive Pattern Extraction Multi-Task Learning for Multi-Step Conversion Estimations, 2023, by
        its abstract: groups found automatically, a modified set attention, a squeeze and excitation, and task-indicator
        vectors that select. Neither its equations nor code could be read, so the forms are others': induced set
        attention and pooling by seeds from Lee et al., Set Transformer, ICML 2019, with norms before attention; the
        form of the mask is ours.
    """

    name: ClassVar[str] = "apem"
    reads: ClassVar[Literal["features", "tokens"]] = "tokens"

    def __init__(
        self,
        num_tasks: int,
        *,
        width: int,
        num_groups: int = 4,
        num_points: int = 8,
        num_blocks: int = 1,
        num_heads: int = 4,
        hidden: int = 128,
        selector: int = 64,
    ) -> None:
        if min(num_groups, num_points, num_blocks) < 1:
            message = (
                f"{num_groups} groups, {num_points} points and {num_blocks} blocks were asked for; there is at least "
                "one of each. Ask for one or more."
            )
            raise RequestError(message)
        super().__init__(num_tasks, inputs=width, width=num_groups * width)

        def blocks(count: int) -> nn.ModuleList:
            return nn.ModuleList(TokenBlock(width, num_heads=num_heads, hidden=hidden) for _ in range(count))

        self.points = nn.Parameter(torch.randn(num_blocks, num_points, width) * width**-0.5)
        self.seeds = nn.Parameter(torch.randn(num_groups, width) * width**-0.5)
        self.gather, self.spread, self.group = blocks(num_blocks), blocks(num_blocks), blocks(1)
        self.excite = SqueezeExcitation(1, self.width, reduction=2, channel=width)
        self.select = Gate(num_tasks, self.width, self.width, reads="both", hidden=(selector,))

    def streams(self, features: Tensor, tasks: Sequence[int]) -> Tensor:
        """Maps tokens (B, S, F) to (T, B, G · F)."""
        values, count = features, len(features)
        for points, gather, spread in zip(self.points, self.gather, self.spread, strict=True):
            values = spread(values, gather(points.repeat(count, 1, 1), values))
        groups = self.group[0](self.seeds.repeat(count, 1, 1), values)
        excited = self.excite(groups.flatten(1))[0]
        return self.select(excited, tasks).sigmoid() * excited
