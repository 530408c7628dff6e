"""aTLAS: anisotropic scaling of task vectors, learned on labelled rows."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from motet._errors import RequestError
from motet.merge.learned._blockwise import BlockWise, OutputWise, Shapes
from motet.merge.learned._coefficients import LayerWise
from motet.merge.learned._descend import TaskLoss, descend
from motet.merge.learned._merged import Merged, merged_shapes


def atlas(
    model: nn.Module,
    base: Mapping[str, Tensor],
    experts: Sequence[Mapping[str, Tensor]],
    batches: Iterable[Sequence[Any]],
    *,
    loss: TaskLoss,
    steps: int = 1000,
    rate: float = 1e-3,
    weight_decay: float = 0.1,
    clip: float = 1.0,
    by: Literal["block", "output"] = "block",
    blocks: int = 1,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Learns one coefficient for each expert and tensor from few labelled rows, beginning at the base.

    Choose it when some labels of each task are at hand, or for a new task that the experts' changes should help: the
    coefficients are so few that a handful of rows does. With more blocks it is a way to fine-tune with P · E · K
    numbers, along directions that other tasks have found.

        min over c of Σ_e loss_e(θ₀ + Σ_j c_pj ⊙ τ_pj),   c = 0 at first

    Args:
        model: says how weights become outputs.
        base: state dict that the experts were tuned from.
        experts: their state dicts.
        batches: for each step a list with one batch for each expert (None where there is none). A new task, of which
            there is no expert, takes the first place, with None in the others.
        loss: of one batch with its labels; gets a function from inputs to outputs, the expert's number and the batch.
        steps: of AdamW.
        rate: of AdamW.
        weight_decay: of AdamW.
        clip: largest norm of the gradient.
        by: coefficients of random blocks of each tensor, or of each output, as ScaLearn scales what adapters add.
        blocks: K of each tensor; 1 is the tensor as a whole.
        seed: of the blocks.

    Returns:
        The merged state dict.

    Raises:
        RequestError: there is no block, or there are blocks where the coefficients are of outputs.

    Cost: as `adamerging`; with outputs or several blocks, also a coefficient laid out for every number of every expert.

    Source: Zhang et al., Knowledge Composition using Task Vectors with Learned Anisotropic Scaling, NeurIPS 2024, and
        its code's AdamW, decay and clipping; `BlockWise` says how its partitions are made here. Departures: float32,
        constant rate.
    """
    coefficients = _coefficients(merged_shapes(base), len(experts), by, blocks, seed)
    merged = Merged(model, base, experts, coefficients=coefficients)
    optimizer = torch.optim.AdamW(merged.parameters(), rate, weight_decay=weight_decay)
    descend(merged, batches, loss, optimizer, steps=steps, clip=clip)
    return merged.merged_state()


def _coefficients(shapes: Shapes, num_experts: int, by: str, blocks: int, seed: int) -> nn.Module:
    if by == "output" and blocks != 1:
        message = f"by='output' and blocks={blocks} arrived; blocks of random numbers or outputs were expected."
        raise RequestError(message + " Leave one of the two out.")
    if by == "output":
        return OutputWise(shapes, num_experts, start=0.0)
    if blocks == 1:
        return LayerWise(len(shapes), num_experts, start=0.0)
    return BlockWise(shapes, num_experts, blocks=blocks, seed=seed)
