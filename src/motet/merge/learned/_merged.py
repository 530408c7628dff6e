"""A model at a weighted sum of the experts' changes, with the weights as its parameters."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from motet._errors import RequestError
from motet.merge._merge import merge
from motet.merge._models import open_models
from motet.merge._ties import TIES


class Merged(nn.Module):
    """The model whose weights are θ₀ + Σ_e c_e m ⊙ τ_e, differentiable in coefficients c and mask m.

    Choose it as the ground of any method that learns how to merge: `weights()` merges once, and every task's loss can
    be taken at the result. The gradient then passes through the merge once, however many tasks there are.

        dL/dc_pe = ⟨τ_pe, dL/dθ_p⟩

    Args:
        model: says how weights become outputs; its own weights are not used and stay as they are.
        base: state dict that the experts were tuned from.
        experts: their state dicts.
        coefficients: gives at each call (E,), or (P, E) with one row for each merged tensor, or by the tensors' names
            what broadcasts to (E, *shape).
        mask: gives a multiplier for each merged tensor, by name; none if None.

    Raises:
        RequestError: the state dicts do not fit each other or the model.

    Cost: the experts' changes in memory; a step costs one pass over them forward and one backward.

    Source: the merge of AdaMerging (Yang et al., ICLR 2024), taken once a step in the place of once a task.
    """

    def __init__(
        self,
        model: nn.Module,
        base: Mapping[str, Tensor],
        experts: Sequence[Mapping[str, Tensor]],
        *,
        coefficients: nn.Module,
        mask: nn.Module | None = None,
    ) -> None:
        super().__init__()
        models = open_models(base, experts)
        missing = set(model.state_dict()) - set(base)
        if missing:
            message = f"The base lacks '{min(missing)}' of the model. Pass the state dict of the same architecture."
            raise RequestError(message)
        self.names = models.merged
        self.coefficients, self.mask = coefficients, mask
        # Not a child: its weights are not this module's, and must not be found by an optimiser.
        self._model = [model]
        self._rest = {name: base[name] for name in models.kept}
        self._tied = models.tied
        # Running means are merged as weights are, but no loss is differentiable in them.
        self._fixed = {name for name, _ in model.named_buffers()}
        self._base = {name: base[name].detach().float() for name in self.names}
        self._changes = {
            name: torch.stack([expert[name].detach().float() - self._base[name] for expert in experts])
            for name in self.names
        }

    @property
    def num_experts(self) -> int:
        """How many experts there are."""
        return len(next(iter(self._changes.values())))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the merged tensors."""
        return {name: tuple(tensor.shape) for name, tensor in self._base.items()}

    def weights(self, masks: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """The merged tensors, differentiable: call it once a step.

        Args:
            masks: multipliers by name to take in the place of what the mask gives.
        """
        found = self.coefficients()
        if masks is None:
            masks = self.mask() if self.mask is not None else {}
        merged = {}
        for number, name in enumerate(self.names):
            shares = found[number] if isinstance(found, Tensor) and found.ndim == 2 else found
            changes = self._changes[name]
            if isinstance(shares, Mapping):
                change = (shares[name] * changes).sum(dim=0)
            else:
                change = torch.tensordot(shares, changes, 1)
            merged[name] = self._base[name] + (change * masks[name] if name in masks else change)
        return merged

    def call(self, weights: Mapping[str, Tensor], *inputs: Any) -> Any:
        """The model's outputs at these weights."""
        return torch.func.functional_call(self._model[0], self._whole(weights), inputs)

    def forward(self, *inputs: Any) -> Any:
        """The merged model's outputs; merges anew at each call."""
        return self.call(self.weights(), *inputs)

    @torch.no_grad()
    def merged_state(self) -> dict[str, Tensor]:
        """A state dict of the merged model as it is now."""
        return {name: tensor.clone() for name, tensor in self._whole(self.weights()).items()}

    def _whole(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        moved = {name: tensor.detach() if name in self._fixed else tensor for name, tensor in weights.items()}
        found = {**self._rest, **moved}
        return found | {name: found[first] for name, first in self._tied.items()}


def merged_shapes(base: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors that a merge of this base's experts changes."""
    return {name: tuple(base[name].shape) for name in open_models(base, [base]).merged}


def trimmed(
    base: Mapping[str, Tensor],
    experts: Sequence[Mapping[str, Tensor]],
    density: float,
    scope: Literal["global", "tensor"] = "global",
) -> list[dict[str, Tensor]]:
    """Each expert without its small changes, as TIES trims them over all tensors or in each."""
    method = TIES(density=density, scale=1.0, scope=scope)
    return [merge(base, [expert], method=method) for expert in experts]
