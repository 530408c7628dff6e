"""Norms of stacked experts: each expert its own."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from motet.models.blocks._groups import Groups
from motet.models.blocks._stacked import pick


class StackedNorm(nn.Module, ABC):
    """A norm with a scale and a shift for each expert.

    Args:
        num_experts: E.
        width: size of an expert's output.
    """

    def __init__(self, num_experts: int, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(num_experts, 1, width))
        self.shift = nn.Parameter(torch.zeros(num_experts, 1, width))

    @abstractmethod
    def forward(self, values: Tensor, chosen: Sequence[int] | None = None) -> Tensor:
        """Maps (E, B, width) to the same shape."""

    @abstractmethod
    def grouped(self, rows: Tensor, groups: Groups) -> Tensor:
        """Maps rows (R, width), sorted by expert, to the same shape."""


class StackedLayerNorm(StackedNorm):
    """Each row to mean zero and variance one over its features."""

    def forward(self, values: Tensor, chosen: Sequence[int] | None = None) -> Tensor:
        """Maps (E, B, width) to the same shape."""
        plain = functional.layer_norm(values, values.shape[-1:])
        return torch.addcmul(pick(self.shift, chosen), plain, pick(self.scale, chosen))

    def grouped(self, rows: Tensor, groups: Groups) -> Tensor:
        """Maps rows (R, width), sorted by expert, to the same shape."""
        plain = functional.layer_norm(rows, rows.shape[-1:])
        return torch.addcmul(self.shift[groups.members, 0], plain, self.scale[groups.members, 0])


class StackedBatchNorm(StackedNorm):
    """Each feature of each expert to mean zero and variance one over the batch; in evaluation over past batches.

    A training batch of one row has no variance and is normalised like one in evaluation.
    """

    momentum = 0.1
    epsilon = 1e-5

    def __init__(self, num_experts: int, width: int) -> None:
        super().__init__(num_experts, width)
        self.mean: Tensor
        self.variance: Tensor
        self.register_buffer("mean", torch.zeros(num_experts, 1, width))
        self.register_buffer("variance", torch.ones(num_experts, 1, width))

    def forward(self, values: Tensor, chosen: Sequence[int] | None = None) -> Tensor:
        """Maps (E, B, width) to the same shape."""
        if self.training and values.shape[1] > 1:
            # Half precision cannot hold sums over many rows.
            wide = values if values.dtype == torch.float64 else values.float()
            variance, mean = torch.var_mean(wide, dim=1, keepdim=True, correction=0)
            self._remember(mean.detach(), variance.detach(), values.shape[1], chosen)
        else:
            mean, variance = pick(self.mean, chosen), pick(self.variance, chosen)
        scale = pick(self.scale, chosen) * torch.rsqrt(variance + self.epsilon)
        return torch.addcmul(pick(self.shift, chosen) - mean * scale, values, scale).to(values.dtype)

    def grouped(self, rows: Tensor, groups: Groups) -> Tensor:
        """Maps rows (R, width), sorted by expert, to the same shape, by what past batches had; evaluation only."""
        scale = self.scale * torch.rsqrt(self.variance + self.epsilon)
        shift = self.shift - self.mean * scale
        return torch.addcmul(shift[groups.members, 0], rows, scale[groups.members, 0])

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, count: int, chosen: Sequence[int] | None) -> None:
        unbiased = variance * (count / (count - 1))
        for buffer, now in ((self.mean, mean), (self.variance, unbiased)):
            if chosen is None:
                buffer.lerp_(now.to(buffer), self.momentum)
            else:
                places = list(chosen)
                buffer[places] = buffer[places].lerp(now.to(buffer), self.momentum)


NORMS: dict[str, type[StackedNorm]] = {"layer": StackedLayerNorm, "batch": StackedBatchNorm}
