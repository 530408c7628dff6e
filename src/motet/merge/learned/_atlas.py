"""aTLAS: anisotropic scaling of task vectors, learned on labelled rows."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from motet.merge.learned._adamerging import _num_merged
from motet.merge.learned._coefficients import LayerWise
from motet.merge.learned._descend import TaskLoss, descend
from motet.merge.learned._merged import Merged


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
) -> dict[str, Tensor]:
    """Learns one coefficient for each expert and tensor from few labelled rows, beginning at the base.

    Choose it when some labels of each task are at hand, or for a new task that the experts' changes should help: the
    coefficients are so few that a handful of rows does.

        min over c of Σ_e loss_e(θ₀ + Σ_j c_pj τ_pj),   c = 0 at first

    Args:
        model: says how weights become outputs.
        base: state dict that the experts were tuned from.
        experts: their state dicts.
        batches: for each step a list with one batch for each expert (None where there is none).
        loss: of one batch with its labels; gets a function from inputs to outputs, the expert's number and the batch.
        steps: of AdamW.
        rate: of AdamW.
        weight_decay: of AdamW.
        clip: largest norm of the gradient.

    Returns:
        The merged state dict.

    Cost: as `adamerging`.

    Source: Zhang et al., Knowledge Composition using Task Vectors with Learned Anisotropic Scaling, NeurIPS 2024, and
        its code's AdamW, decay and clipping. Departures: float32, constant rate, no random partitions of a tensor
        (aTLAS × K).
    """
    merged = Merged(model, base, experts, coefficients=LayerWise(_num_merged(base), len(experts), start=0.0))
    optimizer = torch.optim.AdamW(merged.parameters(), rate, weight_decay=weight_decay)
    descend(merged, batches, loss, optimizer, steps=steps, clip=clip)
    return merged.merged_state()
