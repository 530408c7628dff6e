"""Who pulls against whom: the gradients of several losses, compared."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def gradient_gramian(losses: Mapping[str, Tensor], shared: Sequence[Tensor]) -> Tensor:
    """Inner products of the tasks' gradients at `shared`.

    Args:
        losses: a scalar for each of T tasks.
        shared: parameters, or shared features, that the losses depend on; a loss that does not depend on one of them
            has a zero gradient there.

    Returns:
        (T, T) float64. The graph is kept, `.grad` is not touched.

    Cost: T backward passes from the losses to `shared`, and T copies of it in memory.
    """
    rows = []
    for loss in losses.values():
        gradients = torch.autograd.grad(loss, list(shared), retain_graph=True, allow_unused=True)
        parts = [
            torch.zeros_like(part).flatten() if gradient is None else gradient.detach().flatten()
            for gradient, part in zip(gradients, shared, strict=True)
        ]
        rows.append(torch.cat(parts).double())
    jacobian_TP = torch.stack(rows)
    return jacobian_TP @ jacobian_TP.T


def cosines(gramian: Tensor) -> Tensor:
    """Cosines (T, T) of the gradients whose inner products are `gramian`; zero where a gradient is zero."""
    norms = gramian.diagonal().clamp(min=0).sqrt()
    scale = torch.where(norms > 0, 1.0 / norms, torch.zeros_like(norms))
    return (gramian * scale.unsqueeze(0) * scale.unsqueeze(1)).clamp(-1.0, 1.0)
