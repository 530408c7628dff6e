"""A small network, experts of it and rows: what the tests of learned merges share."""

import copy

import torch
from torch import nn

from motet.merge.learned import entropy


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))


def experts_of(net: nn.Module, count: int, change: float = 0.3) -> list[dict]:
    generator = torch.Generator().manual_seed(1)
    return [
        {name: part + change * torch.randn(part.shape, generator=generator) for name, part in net.state_dict().items()}
        for _ in range(count)
    ]


def inputs(count: int, rows: int = 16) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [torch.randn(rows, 5, generator=generator) for _ in range(count)]


def uncertainty(net: nn.Module, state: dict, batches: list) -> float:
    other = copy.deepcopy(net)
    other.load_state_dict(state)
    return float(sum(entropy(other, 0, batch).detach() for batch in batches))
