"""The step towards the worst point nearby."""

from collections.abc import Sequence

import torch
from torch import Tensor

from motet._errors import RequestError

Grads = Sequence[tuple[Tensor, Tensor]]


def ascent(grads: Grads, rho: float, *, adaptive: bool = False) -> list[tuple[Tensor, Tensor]]:
    """Each parameter with its offset, ρ g / ‖g‖ over all; nothing moves where the gradient is zero or not finite.

    Args:
        grads: parameters with their gradients.
        rho: ρ, the radius.
        adaptive: measure distance relative to each parameter: ρ θ² g / ‖|θ| g‖.
    """
    scaled = [(leaf, grad * leaf.detach().abs() if adaptive else grad) for leaf, grad in grads]
    norm = norm_of([grad for _, grad in scaled])
    if not 0 < norm < float("inf"):
        return []
    return [(leaf, (grad / norm) * (rho * leaf.detach().abs() if adaptive else rho)) for leaf, grad in scaled]


def norm_of(grads: Sequence[Tensor]) -> float:
    """The Euclidean length of all of them together, summed in float64."""
    if not grads:
        return 0.0
    squares = [torch.linalg.vector_norm(grad, dtype=_wide(grad)) for grad in grads]
    return float(torch.linalg.vector_norm(torch.stack([norm.double() for norm in squares])))


def check_radius(name: str, rho: float) -> None:
    """Refuses a radius that is no length.

    Raises:
        RequestError: it is negative, infinite or not a number.
    """
    if not 0 <= rho < float("inf"):
        message = f"{name} got rho={rho}; a finite radius of 0 or more was expected. Papers take 0.001 to 2."
        raise RequestError(message)


def _wide(grad: Tensor) -> torch.dtype:
    return torch.complex128 if grad.is_complex() else torch.float64
