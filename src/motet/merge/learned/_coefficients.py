"""How the coefficients of a learned merge are tied together."""

import torch
from torch import Tensor, nn

from motet.merge._method import check_range


class TaskWise(nn.Module):
    """One coefficient (E,) for each expert.

    Args:
        num_experts: E.
        start: of each.
    """

    def __init__(self, num_experts: int, *, start: float = 0.3) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.full((num_experts,), float(start)))

    def forward(self) -> Tensor:
        """The coefficients."""
        return self.values


class LayerWise(nn.Module):
    """One coefficient (P, E) for each expert and merged tensor.

    Args:
        num_tensors: P.
        num_experts: E.
        start: of each.
    """

    def __init__(self, num_tensors: int, num_experts: int, *, start: float = 0.3) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.full((num_tensors, num_experts), float(start)))

    def forward(self) -> Tensor:
        """The coefficients."""
        return self.values


class Position(nn.Module):
    """A point in the hull of the experts' changes: μ · softmax(z), (E,).

    Args:
        num_experts: E.
        length: μ at the start, above 0.
    """

    def __init__(self, num_experts: int, *, length: float = 1.0) -> None:
        super().__init__()
        check_range("Position", "length", length, 1e-12, float("inf"))
        self.logits = nn.Parameter(torch.zeros(num_experts))
        self.length = nn.Parameter(torch.tensor(float(length)))

    def forward(self) -> Tensor:
        """The coefficients."""
        return self.length * torch.softmax(self.logits, 0)
