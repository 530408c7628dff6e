"""Experts to which others were added later."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from motet.models.blocks._experts import Experts
from motet.models.blocks._groups import Groups


class JoinedExperts(nn.Module):
    """Experts that are there, and more behind them; in a `Mix` as if they were one stack.

    The two keep their own tensors, so that the first can be frozen, and read by others, while the second learn.

    Args:
        first: numbered from 0, one stack or joined themselves.
        more: numbered from where the first end, of the same shape.

    Cost: that of both; the chosen ones of each.
    """

    def __init__(self, first: "Experts | JoinedExperts", more: Experts) -> None:
        super().__init__()
        self.first = first
        self.more = more
        self.num_experts = first.num_experts + more.num_experts
        self.inputs, self.width, self.num_weights = more.inputs, more.width, more.num_weights

    @property
    def by_rows(self) -> bool:
        """Whether a row's output is its own affair, so that rows may be sent to different experts."""
        return self.first.by_rows and self.more.by_rows

    def fresh(self, num_experts: int) -> Experts:
        """New experts of the same shape."""
        return self.more.fresh(num_experts)

    def forward(self, inputs: Tensor, chosen: Sequence[int] | None = None) -> Tensor:
        """Maps rows (B, inputs), read by all, to (E, B, width), of the chosen alone, which increase."""
        if chosen is None:
            return torch.cat([self.first(inputs), self.more(inputs)])
        cut = self.first.num_experts
        parts = [[number for number in chosen if number < cut], [number - cut for number in chosen if number >= cut]]
        return torch.cat([
            part(inputs, numbers) for part, numbers in zip((self.first, self.more), parts, strict=True) if numbers
        ])  # fmt: skip

    def grouped(self, rows: Tensor, groups: Groups) -> Tensor:
        """Maps rows (R, inputs), sorted by expert, each through its own expert to (R, width)."""
        cut, count = int(groups.ends[self.first.num_experts - 1]), self.first.num_experts
        before = replace(groups, members=groups.members[:cut], ends=groups.ends[:count])
        after = replace(groups, members=groups.members[cut:] - count, ends=groups.ends[count:] - cut)
        found = [
            part.grouped(some, own)
            for part, some, own in ((self.first, rows[:cut], before), (self.more, rows[cut:], after))
            if len(some)
        ]
        return torch.cat(found)
