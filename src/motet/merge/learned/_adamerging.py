"""AdaMerging."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from motet.merge.learned._coefficients import LayerWise, TaskWise
from motet.merge.learned._descend import TaskLoss, descend, entropy
from motet.merge.learned._merged import Merged, merged_shapes, trimmed


def adamerging(
    model: nn.Module,
    base: Mapping[str, Tensor],
    experts: Sequence[Mapping[str, Tensor]],
    batches: Iterable[Sequence[Any]],
    *,
    by: Literal["tensor", "task"] = "tensor",
    density: float | None = None,
    start: float = 0.3,
    steps: int = 500,
    rate: float = 1e-3,
    loss: TaskLoss | None = None,
) -> dict[str, Tensor]:
    """Learns how much of each expert goes into each tensor, from inputs without labels.

    Choose it over task arithmetic when some hundred unlabelled inputs of each task are at hand: with one coefficient a
    tensor it was the strongest of the early learned merges.

        min over λ of Σ_e mean entropy of softmax f(x_e; θ₀ + Σ_j λ_pj τ_pj)

    Args:
        model: says how weights become outputs.
        base: state dict that the experts were tuned from.
        experts: their state dicts.
        batches: for each step a list with one batch of inputs for each expert (None where there is none); begun again
            when it ends.
        by: one coefficient for each tensor and expert, or one for each expert.
        density: share of each expert's largest changes to keep first, as TIES trims (the paper's ++); all if None.
        start: of the coefficients.
        steps: of Adam.
        rate: of Adam.
        loss: of one expert's batch; gets a function from inputs to outputs, the expert's number and its batch. The mean
            entropy of the predicted classes if None.

    Returns:
        The merged state dict.

    Cost: a step is one merge forward and backward, and one pass of the model for each expert's batch.

    Source: Yang et al., AdaMerging: Adaptive Model Merging for Multi-Task Learning, ICLR 2024, with FusionBench's Adam
        (β .9, .999) and without clamping. Departure: one merge a step, where that code merges once a task.
    """
    chosen = experts if density is None else trimmed(base, experts, density)
    merged = Merged(model, base, chosen, coefficients=coefficients_by(by, base, len(experts), start))
    descend(merged, batches, loss or entropy, torch.optim.Adam(merged.parameters(), rate), steps=steps)
    return merged.merged_state()


def coefficients_by(
    by: Literal["tensor", "task"], base: Mapping[str, Tensor], num_experts: int, start: float
) -> nn.Module:
    """One coefficient for each tensor and expert, or one for each expert."""
    if by == "task":
        return TaskWise(num_experts, start=start)
    return LayerWise(len(merged_shapes(base)), num_experts, start=start)
