"""Gates on features: each stream times something between nothing and more of it."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from motet.models.blocks._gate import Gate
from motet.models.blocks._stacked import StackedLinear


class SqueezeExcitation(nn.Module):
    """Each stream's channels times sigmoids that see them all: x_c · σ(W₂ relu(W₁ z))_c, with z the channels' means.

    Args:
        num_streams: S; each has weights of its own.
        width: F.
        reduction: how much narrower the middle is than the number of channels.
        channel: features of a channel, side by side; 1 makes each feature a channel and the mean nothing.

    Source: Hu et al., Squeeze-and-Excitation Networks, CVPR 2018.
    """

    def __init__(self, num_streams: int, width: int, *, reduction: int = 4, channel: int = 1) -> None:
        super().__init__()
        self.channel = channel
        channels = width // channel
        middle = max(1, channels // reduction)
        self.squeeze = StackedLinear(num_streams, channels, middle)
        self.excite = StackedLinear(num_streams, middle, channels)

    def forward(self, features: Tensor, streams: Sequence[int] | None = None) -> Tensor:
        """Maps (B, F) or (S, B, F) to (S, B, F)."""
        parts = features.unflatten(-1, (-1, self.channel))
        opened = self.excite(functional.relu(self.squeeze(parts.mean(dim=-1), streams)), streams).sigmoid()
        return (parts * opened.unsqueeze(-1)).flatten(-2)


class FeatureGate(nn.Module):
    """A private view of the features for each stream: x ⊙ Σ_n softmax(W x)_n · 2 σ(x A_n B_n), of low rank.

    Args:
        num_streams: S.
        width: F.
        rank: r of each low-rank gate; None means F / num_gates.
        num_gates: N, gates that are mixed for each stream.

    Cost: B · S · N · 2 · F · r multiplications.

    Source: Wang et al., HoME, 2024, feature gate. The factor 2 lets a gate at zero leave its feature as it is.
    """

    def __init__(self, num_streams: int, width: int, *, rank: int | None = None, num_gates: int = 2) -> None:
        super().__init__()
        self.num_gates = num_gates
        rank = max(1, width // num_gates) if rank is None else rank
        # The N gates of a stream read the same rows, so that their first factors are one wider matrix.
        self.down = StackedLinear(num_streams, width, num_gates * rank, bias=False)
        self.up = StackedLinear(num_streams * num_gates, rank, width, bias=False)
        self.mixture = Gate(num_streams, num_gates, width)

    def forward(self, features: Tensor, streams: Sequence[int] | None = None) -> Tensor:
        """Maps (B, F) or (S, B, F) to (S, B, F)."""
        shares = self.mixture(features, streams).softmax(dim=-1)
        own = range(self.num_gates)
        gates = None if streams is None else [number * self.num_gates + gate for number in streams for gate in own]
        narrow = self.down(features, streams).unflatten(-1, (self.num_gates, -1)).transpose(1, 2).flatten(0, 1)
        opened = (2.0 * self.up(narrow, gates).sigmoid()).unflatten(0, (-1, self.num_gates))
        return features * (shares.unsqueeze(-2) @ opened.transpose(1, 2)).squeeze(-2)


class ChannelScale(nn.Module):
    """Task-oriented channel scaling: x ⊙ W_t gelu(P_t x), optionally through a sigmoid.

    Args:
        num_tasks: T.
        width: F.
        squash: put a sigmoid on the scales.

    Source: Chen et al., M3Net, 2025, and its released code: one projection to T chunks, a GELU, a linear layer a task.
    """

    def __init__(self, num_tasks: int, width: int, *, squash: bool = False) -> None:
        super().__init__()
        self.project = StackedLinear(num_tasks, width, width)
        self.scale = StackedLinear(num_tasks, width, width)
        self.squash = squash

    def forward(self, features: Tensor, tasks: Sequence[int] | None = None) -> Tensor:
        """Maps (B, F) or (T, B, F) to (T, B, F)."""
        scales = self.scale(functional.gelu(self.project(features, tasks)), tasks)
        return features * (scales.sigmoid() if self.squash else scales)
