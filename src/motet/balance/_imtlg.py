"""Impartial multi-task learning, gradient part (IMTL-G)."""

from typing import ClassVar

import torch
from torch import Tensor

from motet.balance._claims import Golden
from motet.balance.engine._update import Update
from motet.balance.engine._view import View
from motet.balance.parts._gramian_method import GramianBalancer
from motet.balance.parts._solvers import Directions, directions, precision


class IMTLG(GramianBalancer):
    """Takes the direction that makes the same angle with every task's gradient.

    Choose it where tasks differ much in the size of their gradients and none should count for more. Weights may be
    negative, and where gradients oppose each other the direction may ascend.

        d = Σ_k α_k g_k with Σ_k α_k = 1 and d·u_k equal for all k, u_k = g_k / ‖g_k‖

    Args:
        gramian: "exact"; or "sketch" or a `Sketch`, for an estimate from part of the rows.
        skip_bad: leave a task with a NaN or infinite loss out of the step instead of raising.

    Cost: the Gramian, and one eigendecomposition (T, T).

    Source: Liu et al., Towards Impartial Multi-task Learning, ICLR 2021, equation 6. Departures: α is found from the
        Gramian, α ∝ C⁺1 / ‖g_k‖ with C the cosines, so that dependent gradients have an answer; it is zero where
        Σα cannot be one, where the released code divides by rounding; tasks without a gradient get weight zero.
        Heads keep their own gradient.
    """

    name: ClassVar[str] = "imtl-g"
    claims: ClassVar[frozenset[str]] = frozenset({
        "scale equivariant", "mean when agreeing", "one task is plain", "zero is harmless",
    })  # fmt: skip
    golden: ClassVar[tuple[Golden, ...]] = (
        Golden(((1.0, 0.0), (0.0, 2.0)), (2 / 3, 2 / 3), "by hand: along (1, 1), on the line through both"),
        Golden(
            ((1.0, 0.0), (3.0, 4.0)), (4 / 3, 2 / 3), "by hand: the bisector (2, 1) meets the line at α = (5/6, 1/6)"
        ),
    )

    def update(self, view: View) -> Update:
        """The weights of equal angles."""
        found = directions(self.gramian_of(view), precision(view))
        return Update(impartial_weights(found, found.norms).to(view.gramian))


def impartial_weights(found: Directions, norms: Tensor) -> Tensor:
    """α (T,) for gradients of these lengths."""
    lengths = found.pseudo_solve(found.alive.double()) * found.alive
    weights = lengths * (norms[found.alive].min() / norms) if not found.is_still else lengths
    total = weights.sum()
    # Where unit gradients cancel, what is left of C⁺1 is rounding.
    if float(lengths.abs().sum()) <= 1e-9 or bool(total.abs() <= 1e-9 * weights.abs().sum()):
        return torch.zeros_like(weights)
    return weights / total
