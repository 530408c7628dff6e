"""Bridges: what streams take from each other."""

from collections.abc import Sequence

from torch import Tensor, nn

from motet.models.blocks._stacked import StackedLinear, pick


class Bridge(nn.Module):
    """Each stream plus what it makes of the others' mean, x_s + P_s mean over s' ≠ s of stop(x_s').

    With the stop a stream reads the others and cannot change them: what it learns from them never pulls at them.

    Args:
        num_streams: S, two or more; each has a P of its own.
        width: F.
        stop: whether the gradient ends at the bridge.

    Cost: B · S · F² multiplications; for some streams, only theirs.

    Source: Zhang et al., MTPano, 2026, by its abstract: two branches that interact with gradient truncation. The form
        of the interaction is ours.
    """

    def __init__(self, num_streams: int, width: int, *, stop: bool = True) -> None:
        super().__init__()
        self.cross = StackedLinear(num_streams, width, width)
        self.stop = stop

    def forward(self, streams: Tensor, wanted: Sequence[int] | None = None) -> Tensor:
        """Maps all streams (S, B, F) to the wanted ones, (S', B, F)."""
        read = streams.detach() if self.stop else streams
        own = pick(streams, wanted)
        others = (read.sum(dim=0) - pick(read, wanted)) / (len(streams) - 1)
        return own + self.cross(others, wanted)
