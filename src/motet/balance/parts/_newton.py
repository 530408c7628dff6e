"""Fair bargaining between tasks as a smooth convex problem, solved by Newton's method."""

import torch
from torch import Tensor

_MAX_STEPS = 200
_NEAR = 0.1  # relative steps below this need no safeguard
_CLOSE = 1e-6


def fair_lengths(cosines: Tensor, masses: Tensor, power: float, *, firmness: float = 1e-10) -> Tensor:
    """The positive ℓ with (C ℓ)_i = a_i ℓ_i^(−p), the minimiser of ½ ℓᵀCℓ − Σ a_i ∫ ℓ_i^(−p).

    Newton steps relative to ℓ, halved until the slope at their end is small: the problem is convex, so that alone shows
    progress. A step never leaves ℓ > 0.

    Args:
        cosines: (T, T) positive definite C.
        masses: (T,) positive a.
        power: p > 0.
        firmness: the ridge to add should there be no convergence.

    Returns:
        (T,) ℓ, to about 1e-10 relative.

    Cost: one Cholesky factor (T, T) a step; 5 to 15 steps, up to 40 where C is nearly singular.
    """
    lengths = masses ** (1 / (1 + power))
    pull = lengths @ cosines
    # The best multiple of the start: along a ray the problem has a closed form.
    ray = (masses @ lengths ** (1 - power)) / (lengths @ pull).clamp(min=1e-300)
    factor = float(ray) ** (1 / (1 + power))
    lengths, pull = lengths * factor, pull * factor
    for _ in range(_MAX_STEPS):
        push = masses * lengths**-power
        gradient = lengths * (pull - push)
        curvature = lengths.unsqueeze(1) * cosines * lengths
        curvature.diagonal().add_(power * lengths * push)
        factors, _ = torch.linalg.cholesky_ex(curvature)
        step = -torch.cholesky_solve(gradient.unsqueeze(1), factors).flatten()
        largest = float(step.abs().max())
        size = 1.0
        while True:
            near = largest < _NEAR
            moved = lengths * (1 + step if near else _relative(size * step, power))
            pull = cosines @ moved
            if near or size < 1e-9:
                break
            change = moved - lengths
            slope = float((pull - masses * moved**-power) @ change)
            if slope <= -0.3 * float((gradient / lengths) @ change):
                break
            size *= 0.5
        lengths = moved
        # Newton's error is squared at each step.
        if largest < _CLOSE:
            return lengths
    # A Pareto point, where ℓ has no bound, with masses many orders apart: a larger ridge gives it one.
    firmer = cosines + cosines.diagonal().mean() * firmness * torch.eye(len(cosines), dtype=cosines.dtype)
    return fair_lengths(firmer, masses, power, firmness=100 * firmness) if firmness < 1 else lengths


def _relative(step: Tensor, power: float) -> Tensor:
    """ℓ_new / ℓ for a relative step: shrinking as a step in ℓ^(−p), in which small ℓ are nearly linear, would."""
    shrinking = (1 - power * step.clamp(max=0)) ** (-1 / power)
    return torch.where(step < 0, shrinking, 1 + step)


def clipped(weights: Tensor, gramian: Tensor, max_norm: float | None) -> Tensor:
    """Weights whose direction is at most `max_norm` long."""
    if max_norm is None:
        return weights
    # Through lengths that are at most one, since squares of weights times squares of gradients may not fit.
    gramian = gramian.detach().to(weights)
    parts = weights * gramian.diagonal().clamp(min=0).sqrt()
    largest = float(parts.abs().max())
    if largest == 0:
        return weights
    scaled = weights / largest
    norm = largest * float((scaled @ gramian @ scaled).clamp(min=0)) ** 0.5
    return weights * min(1.0, max_norm / norm) if norm > 0 else weights
