"""Layers whose weights are merged anew for what comes in."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn


class Router(nn.Module):
    """What features ask of each expert: (…, width) to coefficients (…, E), without any bound on them.

    Args:
        width: of the features.
        num_experts: E.
        start: of every coefficient, before training.
        depth: number of linear layers, 1 or 2.
        generator: of the first weights.

    Source: the router of WEMoE's code: normal weights of deviation 0.01, the last bias at the start.
    """

    def __init__(
        self, width: int, num_experts: int, *, start: float, depth: Literal[1, 2], generator: torch.Generator
    ) -> None:
        super().__init__()
        self.width = width
        hidden = [nn.Linear(width, width), nn.ReLU()] if depth == 2 else []
        last = nn.Linear(width, num_experts)
        self.layers = nn.Sequential(*hidden, last)
        for name, values in self.named_parameters():
            if name.endswith("weight"):
                nn.init.normal_(values, std=0.01, generator=generator)
            else:
                nn.init.zeros_(values)
        nn.init.constant_(last.bias, start)

    def forward(self, inputs: Tensor) -> Tensor:
        """The coefficients."""
        return self.layers(inputs)


class RoutedModule(nn.Module):
    """A module at W₀ + Σ_e g_e(x) τ_e, with g from a router that reads the module's own inputs.

    Args:
        module: with the base's weights; it is frozen.
        changes: (E, *shape) by the names of its parameters.
        router: gives (…, E) for inputs (B, F), or (B, S, F), where the mean over S counts.
        by: 'row' gives every row weights of its own, 'batch' the whole batch those of its mean.

    Cost: one product (B, E)(E, n) for the module's n numbers, and with 'row' memory for B · n; then a batched pass.

    Source: Tang et al., Merging Multi-Task Models via Weight-Ensembling Mixture of Experts, ICML 2024. Departure: that
        code merges row by row and expert by expert in Python; here all rows are one product.
    """

    def __init__(
        self, module: nn.Module, changes: Mapping[str, Tensor], router: Router, *, by: Literal["row", "batch"]
    ) -> None:
        super().__init__()
        self.module = module.requires_grad_(requires_grad=False)
        self.router = router
        self._by = by
        self._shapes = {name: change.shape[1:] for name, change in changes.items()}
        self.register_buffer("changes", torch.cat([change.flatten(1) for change in changes.values()], dim=1))

    def forward(self, inputs: Tensor, *rest: Any) -> Any:
        """The module's outputs under weights made for these inputs."""
        shares = self.router(inputs)
        shares_BE = shares.flatten(1, -2).mean(dim=1) if shares.ndim > 2 else shares
        if self._by == "batch":
            return torch.func.functional_call(self.module, self._weights(shares_BE.mean(dim=0)), (inputs, *rest))

        def one(weights: dict[str, Tensor], row: Tensor) -> Tensor:
            return torch.func.functional_call(self.module, weights, (row.unsqueeze(0), *rest)).squeeze(0)

        return torch.func.vmap(one, randomness="different")(self._weights(shares_BE), inputs)

    def _weights(self, shares: Tensor) -> dict[str, Tensor]:
        """The parameters (*shape), or (B, *shape) for coefficients (B, E)."""
        changes = (shares @ self.get_buffer("changes")).split(
            [shape.numel() for shape in self._shapes.values()], dim=-1
        )
        return {
            name: self.module.get_parameter(name) + change.reshape(*shares.shape[:-1], *shape)
            for (name, shape), change in zip(self._shapes.items(), changes, strict=True)
        }
