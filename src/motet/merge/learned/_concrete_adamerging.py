"""Concrete AdaMerging: a mask that is good for coefficients yet to be learned."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from motet.merge.learned._adamerging import coefficients_by
from motet.merge.learned._concrete import ConcreteMask
from motet.merge.learned._descend import TaskLoss, again, backward, descend, entropy
from motet.merge.learned._merged import Merged


def concrete_adamerging(
    model: nn.Module,
    base: Mapping[str, Tensor],
    experts: Sequence[Mapping[str, Tensor]],
    batches: Iterable[Sequence[Any]],
    *,
    by: Literal["tensor", "task"] = "tensor",
    start: float = 0.3,
    mask_steps: int = 1000,
    steps: int = 1000,
    mask_rate: float = 1e-3,
    inner_rate: float = 1.0,
    rate: float = 1e-3,
    temperature: float = 0.5,
    seed: int = 0,
    loss: TaskLoss | None = None,
) -> dict[str, Tensor]:
    """Learns which weights the experts may change together, on two levels, and then how much of each goes in.

    Choose it over `adamerging` when the experts' changes collide and thrice its time is at hand. In each step of the
    first stage the coefficients start anew and take one step under the drawn mask; the mask then learns from that:

        λ' = one Adam step on λ from L(θ₀ + Σ_j λ_j m ⊙ τ_j);   x ← x − Adam(∂L(θ₀ + Σ_j λ'_j m(x, u) ⊙ τ_j) / ∂x)

    with L the sum over experts of the mean entropy. The second stage is AdaMerging under the mask.

    Args:
        model: says how weights become outputs.
        base: state dict that the experts were tuned from.
        experts: their state dicts.
        batches: for each step a list with one batch of inputs for each expert (None where there is none). A step of the
            first stage takes two: the mask learns from other rows than the coefficients did.
        by: one coefficient for each tensor and expert, or one for each expert.
        start: of the coefficients.
        mask_steps: of Adam on the mask.
        steps: of Adam on the coefficients, under the mask.
        mask_rate: of Adam on the mask.
        inner_rate: of the coefficients' one step. Adam's first step is as long as its rate.
        rate: of Adam on the coefficients, under the mask.
        temperature: of the mask, above 0.
        seed: of the mask's draws.
        loss: as `adamerging` takes it.

    Returns:
        The merged state dict, with the mask as draws are on average.

    Cost: a step of the first stage is two of `adamerging`, and one random number a weight.

    Source: Tang et al., Concrete Subspace Learning based Interference Elimination for Multi-task Model Fusion, 2023,
        and FusionBench's settings and order, in which λ' is taken as a constant and the inner Adam keeps its moments.
        Departure: that code's final mask is one more draw, and here what draws are on average.
    """
    merged = Merged(model, base, experts, coefficients=coefficients_by(by, base, len(experts), start))
    mask = ConcreteMask(merged.shapes(), temperature=temperature, seed=seed)
    rows, chosen = again(batches), loss or entropy
    inner = torch.optim.Adam(merged.coefficients.parameters(), inner_rate)
    outer = torch.optim.Adam(mask.parameters(), mask_rate)
    for _ in range(mask_steps):
        _learn_mask(merged, mask, rows, chosen, inner, outer, start)
    _restart(merged, start)
    merged.mask = mask.eval().requires_grad_(requires_grad=False)
    descend(merged, rows, chosen, torch.optim.Adam(merged.coefficients.parameters(), rate), steps=steps)
    return merged.merged_state()


def _learn_mask(
    merged: Merged,
    mask: ConcreteMask,
    rows: Iterator[Sequence[Any]],
    loss: TaskLoss,
    inner: torch.optim.Optimizer,
    outer: torch.optim.Optimizer,
    start: float,
) -> None:
    """One step of the mask, at the coefficients that one step under it has found."""
    masks = mask()
    _restart(merged, start)
    inner.zero_grad()
    backward(merged, merged.weights({name: part.detach() for name, part in masks.items()}), next(rows), loss)
    inner.step()
    outer.zero_grad()
    backward(merged, merged.weights(masks), next(rows), loss)
    outer.step()


@torch.no_grad()
def _restart(merged: Merged, start: float) -> None:
    for values in merged.coefficients.parameters():
        values.fill_(start)
