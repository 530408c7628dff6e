"""The multiple-gradient descent algorithm (MGDA)."""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from motet._errors import RequestError
from motet.balance._claims import Golden
from motet.balance.engine._sketch import Source
from motet.balance.engine._update import Update
from motet.balance.engine._view import View
from motet.balance.parts._gramian_method import GramianBalancer
from motet.balance.parts._solvers import Directions, directions, nonnegative_qp, precision

Normalisation = Literal["none", "l2", "loss", "loss+"]


class MGDA(GramianBalancer):
    """Follows the shortest vector in the gradients' convex hull: no task ascends, and it stops at a Pareto point.

    Choose it for a certificate of Pareto stationarity. Small gradients rule the direction: tasks that are nearly
    learned slow all others down, unless gradients are normalised.

        w = argmin over the simplex of ‖Σ_k w_k g_k / n_k‖²,   d = Σ_k (w_k / n_k) g_k

    Args:
        normalisation: n_k is 1 ("none"), ‖g_k‖ ("l2"), L_k ("loss") or L_k ‖g_k‖ ("loss+").
        gramian: "exact"; or "sketch" or a `Sketch`, for an estimate from part of the rows.
        skip_bad: leave a task with a NaN or infinite loss out of the step instead of raising.

    Cost: the Gramian, and a quadratic program of T variables. With `features=`, MGDA-UB.

    Source: Désidéri, Multiple-gradient descent algorithm, Comptes Rendus Mathématique 2012; Sener and Koltun,
        Multi-Task Learning as Multi-Objective Optimization, NeurIPS 2018. Departures: the exact minimiser by block
        pivoting in the place of at most 250 Frank-Wolfe or line-search steps, which stop far from it for many tasks;
        heads get their own gradient, where the released code scales them by w.

    Example:
        >>> w = torch.zeros(2, requires_grad=True)
        >>> _ = MGDA().backward({"a": w[0], "b": 2 * w[1]}, shared=[w])
        >>> w.grad
        tensor([0.8000, 0.4000])
    """

    name: ClassVar[str] = "mgda"
    claims: ClassVar[frozenset[str]] = frozenset({
        "scale equivariant", "mean when agreeing", "never ascends", "stationary is zero", "one task is plain",
        "duplicate is harmless",
    })  # fmt: skip
    golden: ClassVar[tuple[Golden, ...]] = (
        Golden(((1.0, 0.0), (0.0, 2.0)), (0.8, 0.4), "by hand: the foot of the perpendicular on the segment"),
        Golden(((1.0, 0.0), (2.0, 1.0)), (1.0, 0.0), "by hand: the nearest point of the segment is its end"),
        Golden(((1.0, 1.0), (-1.0, 1.0), (0.0, 5.0)), (0.0, 1.0), "by hand: the third task is beyond the segment"),
    )

    def __init__(
        self, *, normalisation: Normalisation = "none", gramian: Source = "exact", skip_bad: bool = False
    ) -> None:
        super().__init__(gramian=gramian, skip_bad=skip_bad)
        if normalisation not in {"none", "l2", "loss", "loss+"}:
            message = f"MGDA got normalisation={normalisation!r}; pass 'none', 'l2', 'loss' or 'loss+'."
            raise RequestError(message)
        self.normalisation = normalisation

    def update(self, view: View) -> Update:
        """The weights of the shortest vector."""
        found = directions(self.gramian_of(view), precision(view))
        sizes = torch.ones_like(found.norms)
        if self.normalisation in {"l2", "loss+"}:
            sizes = sizes * found.norms
        if self.normalisation in {"loss", "loss+"}:
            sizes = sizes * view.losses.cpu().abs().clamp(min=1e-12)
        weights = min_norm_weights(found, found.norms / sizes) / sizes
        return Update(weights.to(view.gramian))


def min_norm_weights(found: Directions, norms: Tensor) -> Tensor:
    """The weights (T,) on the simplex of the shortest combination of gradients with these lengths.

    KKT of ½ sᵀ(G + 11ᵀ)s − 1ᵀs over s ≥ 0 are those of the simplex problem, with s a multiple of w; in the lengths
    y = n s, G becomes the cosines and 1 becomes 1/n.
    """
    if not bool(found.alive.all()):
        return (~found.alive).double() / (~found.alive).sum()
    inverse = norms.min() / norms
    lengths = nonnegative_qp(found.cosines + inverse.unsqueeze(1) * inverse, inverse.unsqueeze(0))[0]
    weights = lengths * inverse
    return weights / weights.sum()
