"""Concrete subspace masks."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from motet._errors import RequestError
from motet.merge.learned._coefficients import TaskWise
from motet.merge.learned._descend import TaskLoss, descend, entropy
from motet.merge.learned._merged import Merged


class ConcreteMask(nn.Module):
    """A mask shared by all experts, one entry a weight, drawn anew at each call while training.

        m = sigmoid((log(u / (1 − u)) + x) / T), u uniform, while training
        m = sigmoid(x) otherwise: the chance of a draw above one half, and about what draws are on average

    Each tensor's m is divided by its mean.

    Args:
        shapes: of the tensors, by name.
        temperature: T, above 0.
        seed: of the draws.

    Raises:
        RequestError: the temperature is not above 0.
    """

    def __init__(self, shapes: Mapping[str, Sequence[int]], *, temperature: float = 0.5, seed: int = 0) -> None:
        super().__init__()
        if not temperature > 0:
            message = f"ConcreteMask got temperature={temperature}; a number above 0 was expected. The paper takes 0.5."
            raise RequestError(message)
        self._names = list(shapes)
        self.logits = nn.ParameterList(nn.Parameter(torch.zeros(tuple(shape))) for shape in shapes.values())
        self._temperature = temperature
        self._generator = torch.Generator().manual_seed(seed)

    def forward(self) -> dict[str, Tensor]:
        """A multiplier of mean one for each tensor; a draw while training, what draws are on average otherwise."""
        found = {}
        for name, logits in zip(self._names, self.logits, strict=True):
            # A mask without noise at the temperature would be twice as sharp as anything that has been trained on.
            mask = torch.sigmoid(logits)
            if self.training:
                uniform = torch.rand(logits.shape, generator=self._generator).clamp(1e-6, 1 - 1e-6)
                mask = torch.sigmoid((torch.logit(uniform).to(logits) + logits) / self._temperature)
            found[name] = mask / mask.mean()
        return found


def concrete_task_arithmetic(
    model: nn.Module,
    base: Mapping[str, Tensor],
    experts: Sequence[Mapping[str, Tensor]],
    batches: Iterable[Sequence[Any]],
    *,
    scale: float = 0.3,
    steps: int = 2000,
    rate: float = 1e-3,
    temperature: float = 0.5,
    seed: int = 0,
    loss: TaskLoss | None = None,
) -> dict[str, Tensor]:
    """Learns which weights the experts may change together, and merges there by task arithmetic.

    Choose it over task arithmetic when unlabelled inputs are at hand and the experts' changes collide.

        min over x of E_u Σ_e mean entropy of softmax f(x_e; θ₀ + λ Σ_j m(x, u) ⊙ τ_j)

    Args:
        model: says how weights become outputs.
        base: state dict that the experts were tuned from.
        experts: their state dicts.
        batches: for each step a list with one batch of inputs for each expert (None where there is none).
        scale: λ.
        steps: of Adam.
        rate: of Adam.
        temperature: of the mask, above 0.
        seed: of the mask's draws.
        loss: as `adamerging` takes it.

    Returns:
        The merged state dict, with the mask as draws are on average.

    Cost: as `adamerging`, and one random number a weight and step.

    Source: Tang et al., Concrete Subspace Learning based Interference Elimination for Multi-task Model Fusion, 2023,
        and FusionBench's settings. Departure: that code's final mask is one more draw; the average is the authors'
        own choice where they do not draw. `concrete_adamerging` learns the coefficients as well.
    """
    coefficients = TaskWise(len(experts), start=scale).requires_grad_(requires_grad=False)
    merged = Merged(model, base, experts, coefficients=coefficients)
    merged.mask = ConcreteMask(merged.shapes(), temperature=temperature, seed=seed)
    descend(merged, batches, loss or entropy, torch.optim.Adam(merged.mask.parameters(), rate), steps=steps)
    merged.eval()
    return merged.merged_state()
