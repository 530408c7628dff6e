"""Self positioning: gradient search in the space between the experts."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from motet.merge.learned._coefficients import Position
from motet.merge.learned._descend import TaskLoss, descend
from motet.merge.learned._merged import Merged


def self_positioning(
    model: nn.Module,
    base: Mapping[str, Tensor],
    experts: Sequence[Mapping[str, Tensor]],
    batches: Iterable[Sequence[Any]],
    *,
    loss: TaskLoss,
    steps: int = 200,
    rate: float = 0.01,
) -> dict[str, Tensor]:
    """Looks for the best mixture of experts and the best distance from the base, on a small balanced set of rows.

    Choose it for experts of one family, such as sentence encoders, where E + 1 numbers are all that the rows can bear.

        min over z, μ of Σ_e loss_e(θ₀ + μ Σ_j softmax(z)_j τ_j)

    Args:
        model: says how weights become outputs.
        base: state dict that the experts were tuned from.
        experts: their state dicts.
        batches: for each step a list with one batch for each expert (None where there is none).
        loss: of one batch, such as the contrastive loss of training.
        steps: of gradient descent.
        rate: its learning rate.

    Returns:
        The merged state dict.

    Cost: as `adamerging`.

    Source: Self Positioning (Li et al., 2024), of which the abstract was available to us: gradient descent on
        interpolation and length over a probe set. The softmax and the defaults are our reading.
    """
    merged = Merged(model, base, experts, coefficients=Position(len(experts)))
    descend(merged, batches, loss, torch.optim.SGD(merged.parameters(), rate), steps=steps)
    return merged.merged_state()
