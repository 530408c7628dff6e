"""Projection on the simplex of weights."""

import torch
from torch import Tensor


def project_on_simplex(point: Tensor) -> Tensor:
    """The point (T,) of the simplex {w ≥ 0, Σ w = 1} that is nearest to `point`.

    Cost: one sort.

    Source: Held, Wolfe and Crowder, Validation of subgradient optimization, Mathematical Programming 1974.

    Example:
        >>> project_on_simplex(torch.tensor([2.0, 1.5, -3.0]))
        tensor([0.7500, 0.2500, 0.0000])
    """
    # Only differences count; starting from the largest keeps their digits.
    shifted = point - point.max()
    ordered = shifted.sort(descending=True).values
    levels = (ordered.cumsum(0) - 1.0) / torch.arange(1, len(point) + 1, dtype=point.dtype, device=point.device)
    return (shifted - levels[(ordered > levels).sum() - 1]).clamp(min=0.0)
