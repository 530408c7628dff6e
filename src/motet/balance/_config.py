"""Conflict-free gradients (ConFIG)."""

from typing import ClassVar

import torch

from motet.balance._claims import Golden
from motet.balance.engine._update import Update
from motet.balance.engine._view import View
from motet.balance.parts._gramian_method import GramianBalancer
from motet.balance.parts._solvers import directions, precision


class ConFIG(GramianBalancer):
    """Takes the direction of equal cosine with every gradient, as long as the gradients' projections on it add up to.

    Choose it where few losses of one system conflict, as those of a physics-informed network. With independent
    gradients no task ascends; with dependent ones it is the best fit.

        b = U⁺ 1,  û = b / ‖b‖,  d = (Σ_k g_k·û) û,   U the unit gradients

    Args:
        gramian: "exact"; or "sketch" or a `Sketch`, for an estimate from part of the rows.
        skip_bad: leave a task with a NaN or infinite loss out of the step instead of raising.

    Cost: the Gramian, and one eigendecomposition (T, T).

    Source: Liu, Chu and Thuerey, ConFIG: Towards Conflict-free Training of Physics Informed Neural Networks, ICLR 2025,
        equation 2. Departure: from the Gramian, b = Uᵀ C⁺ 1 with C the cosines; tasks without a gradient are left out.
        Heads keep their own gradient, where the released code knows no heads.
    """

    name: ClassVar[str] = "config"
    claims: ClassVar[frozenset[str]] = frozenset({
        "scale equivariant", "mean when agreeing", "one task is plain", "zero is harmless",
    })  # fmt: skip
    golden: ClassVar[tuple[Golden, ...]] = (
        Golden(((1.0, 0.0), (0.0, 3.0)), (2.0, 2.0), "by hand: û = (1, 1)/√2, the projections add up to 4/√2"),
        Golden(((2.0, 0.0), (2.0, 0.0)), (4.0, 0.0), "by hand: equal gradients, the sum"),
    )

    def update(self, view: View) -> Update:
        """The weights of the conflict-free direction."""
        found = directions(self.gramian_of(view), precision(view))
        ones = found.alive.double()
        lengths = found.pseudo_solve(ones) * found.alive
        square = float(lengths.sum())
        if square <= 1e-9:  # unit gradients cancel: what is left is rounding
            return Update(torch.zeros_like(view.gramian[0]))
        along = found.norms @ ((found.cosines @ lengths) * ones)
        return Update((lengths / found.norms * float(along) / square).to(view.gramian))
