"""Fair bargaining between tasks as a smooth convex problem, solved by Newton's method."""

import torch
from torch import Tensor

from motet.balance.parts._solvers import Directions

_MAX_STEPS = 200
_NEAR = 0.1  # relative steps below this need no safeguard
_CLOSE = 1e-6  # Newton's error is squared at each step


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
        push = masses * lengths ** (1 - power)
        gradient = push - lengths * pull
        curvature = torch.outer(lengths, lengths).mul_(cosines)
        curvature.diagonal().add_(push, alpha=power)
        factors = torch.linalg.cholesky_ex(curvature)[0]
        step = torch.cholesky_solve(gradient.unsqueeze(1), factors).flatten()
        largest = float(torch.linalg.vector_norm(step, torch.inf))
        if largest < _CLOSE:
            return lengths * (1 + step)
        if largest < _NEAR:
            lengths = lengths * (1 + step)
            pull = cosines @ lengths
        else:
            lengths, pull = _safeguarded(cosines, masses, power, lengths, gradient, step)
    # A Pareto point, where ℓ has no bound, with masses many orders apart: a larger ridge gives it one.
    firmer = cosines + cosines.diagonal().mean() * firmness * torch.eye(len(cosines), dtype=cosines.dtype)
    return fair_lengths(firmer, masses, power, firmness=100 * firmness) if firmness < 1 else lengths


def _safeguarded(
    cosines: Tensor, masses: Tensor, power: float, lengths: Tensor, gradient: Tensor, step: Tensor
) -> tuple[Tensor, Tensor]:
    """The lengths after so much of a long step that the slope at its end is small, and C times them."""
    downhill, size = gradient / lengths, 1.0
    while True:
        moved = lengths * _relative(size * step, power)
        pull = cosines @ moved
        change = moved - lengths
        slope = float((pull - masses * moved**-power) @ change)
        if size < 1e-9 or slope <= 0.3 * float(downhill @ change):
            return moved, pull
        size *= 0.5


def _relative(step: Tensor, power: float) -> Tensor:
    """ℓ_new / ℓ for a relative step: shrinking as a step in ℓ^(−p), in which small ℓ are nearly linear, would."""
    shrinking = (1 - power * step.clamp(max=0)) ** (-1 / power)
    return torch.where(step < 0, shrinking, 1 + step)


def clipped(weights: Tensor, found: Directions, max_norm: float | None) -> Tensor:
    """Weights (T,) whose direction is at most `max_norm` long."""
    if max_norm is None:
        return weights
    # Through the lengths that tasks add, since squares of weights times squares of gradients may not fit.
    lengths = weights * found.norms * found.alive
    square = float(lengths @ (found.cosines @ lengths))
    return weights * (max_norm / square**0.5) if square > max_norm**2 else weights
