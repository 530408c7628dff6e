"""Dynamic logits fusion: small experts steer a large model at its outputs."""

from collections.abc import Sequence

import torch
from torch import Tensor

from motet._errors import RequestError

_GRID = 41
_ROUNDS = 6


def fuse_logits(large: Tensor, small: Tensor, experts: Sequence[Tensor], *, most: float = 2.0) -> tuple[Tensor, Tensor]:
    """Shifts a large model's logits by what small experts have learned, as far as they themselves have moved.

    Choose it where the large model cannot be tuned and small ones of the same vocabulary can.

        s = s_L + Σ_e a_e (s_e − s_S);  a in [0, most] minimises, with P̃ = softmax s,
        Σ_e (KL(P̃‖P_L) − KL(P_e‖P_S))² + (KL(P_L‖P̃) − KL(P_S‖P_e))²

    One expert is moved at a time, as the paper does for speed: for each row the best a of every expert alone is found
    on a grid that narrows around the best point, and the expert with the smaller objective is taken.

    Args:
        large: (..., C) logits of the large model.
        small: (..., C) logits of the untuned small model.
        experts: (..., C) logits of each tuned small model.
        most: upper end of the search.

    Returns:
        The fused logits (..., C), and the coefficients (..., E), all but one of them zero.

    Raises:
        RequestError: shapes differ, or there is no expert.

    Cost: 41 · 6 softmaxes of each row and expert.

    Source: Fan et al., On Giant's Shoulders: Effortless Weak to Strong by Dynamic Logits Fusion, NeurIPS 2024. The
        objective is the paper's; the search is ours.
    """
    if not experts or any(logits.shape != large.shape for logits in (small, *experts)):
        shapes = [tuple(logits.shape) for logits in (large, small, *experts)]
        message = (
            f"Logits of shapes {shapes} arrived; one shape for the large, the small and at least one expert was "
            f"expected. "
            "The models need one vocabulary."
        )
        raise RequestError(message)
    shifts = torch.stack([logits - small for logits in experts])
    wanted = torch.stack([_divergences(logits, small) for logits in experts])
    points, values = zip(*(_best(large, shift, wanted, most) for shift in shifts), strict=True)
    taken = torch.stack(values).argmin(dim=0)
    coefficients = torch.nn.functional.one_hot(taken, len(experts)) * torch.stack(points, dim=-1)
    fused = large + torch.einsum("...e,e...c->...c", coefficients, shifts)
    return fused, coefficients


def _divergences(logits: Tensor, other: Tensor) -> Tensor:
    """(2, ...) KL(p‖q) and KL(q‖p)."""
    p, q = torch.log_softmax(logits, -1), torch.log_softmax(other, -1)
    return torch.stack([(p.exp() * (p - q)).sum(-1), (q.exp() * (q - p)).sum(-1)])


def _best(large: Tensor, shift: Tensor, wanted: Tensor, most: float) -> tuple[Tensor, Tensor]:
    """(...) the coefficient of one expert's shift, and its objective."""
    low, high = torch.zeros_like(large[..., 0]), torch.full_like(large[..., 0], most)
    steps = torch.linspace(0, 1, _GRID, dtype=large.dtype, device=large.device)
    steps = steps.reshape(-1, *[1] * low.ndim)
    point = value = low
    for _ in range(_ROUNDS):
        points = low + (high - low) * steps
        found = _divergences(large + points.unsqueeze(-1) * shift, large.expand(_GRID, *large.shape))
        objective = (found.unsqueeze(0) - wanted.unsqueeze(2)).square().sum(dim=(0, 1))
        value, place = objective.min(dim=0)
        point = points.gather(0, place.unsqueeze(0)).squeeze(0)
        width = (high - low) / (_GRID - 1)
        low, high = (point - width).clamp(min=0), (point + width).clamp(max=most)
    return point, value
