"""Multi-task learning as a bargaining game (Nash-MTL)."""

from typing import ClassVar

import torch
from torch import Tensor

from motet.balance._claims import Golden
from motet.balance.engine._sketch import Source
from motet.balance.engine._update import Update
from motet.balance.engine._view import View
from motet.balance.parts._gramian_method import GramianBalancer
from motet.balance.parts._newton import clipped, fair_lengths
from motet.balance.parts._solvers import Directions, directions, precision


class NashMTL(GramianBalancer):
    """Takes the Nash bargaining solution: the product of the tasks' gains is greatest, whatever the losses' scales.

    Choose it where losses have different units and every task should gain in proportion. No task ascends.

        d = Σ_k α_k g_k with α > 0 and g_k·d = 1 / α_k

    Args:
        max_norm: longest direction that is let through, or None. The solution has length √T, so that 1 gives every step
            the same length, as in the released code.
        gramian: "exact"; or "sketch" or a `Sketch`, for an estimate from part of the rows.
        skip_bad: leave a task with a NaN or infinite loss out of the step instead of raising.

    Cost: the Gramian, 5 to 15 Cholesky factors (T, T), and one backward of the weighted sum.

    Source: Navon et al., Multi-Task Learning as a Bargaining Game, ICML 2022, equation 4. Heads get the gradient of
        the weighted loss Σ α_k L_k, as in the released code. Departures: Newton's method on ½αᵀGα − Σ log α_k, exact
        and faster than the sequence of convex programs, so that weights are solved for at every step; the clip acts on
        the heads' gradients too; a task without a gradient at the shared parameters starts from α = 1.
    """

    name: ClassVar[str] = "nash-mtl"
    claims: ClassVar[frozenset[str]] = frozenset({
        "scale invariant", "never ascends", "zero is harmless",
    })  # fmt: skip
    golden: ClassVar[tuple[Golden, ...]] = (
        Golden(((1.0, 0.0), (0.0, 7.0)), (0.5**0.5, 0.5**0.5), "by hand: α = 1/‖g_k‖, then length 1"),
        Golden(((4.0, 0.0),), (1.0, 0.0), "by hand: one task, the unit gradient", losses=(3.0,)),
    )

    def __init__(self, *, max_norm: float | None = 1.0, gramian: Source = "exact", skip_bad: bool = False) -> None:
        super().__init__(gramian=gramian, skip_bad=skip_bad)
        self.max_norm = max_norm

    def update(self, view: View) -> Update:
        """The weights of the bargaining solution."""
        found = directions(self.gramian_of(view), precision(view))
        weights = clipped(bargaining_weights(found, 1.0), found, self.max_norm)
        return Update(weights.to(view.gramian), heads=True)


def bargaining_weights(found: Directions, alpha: float) -> Tensor:
    """The positive w (T,) with (G w)_k = w_k^(−1/α); one for tasks without a gradient."""
    alive, power = found.alive, 1 / alpha
    if bool(alive.all()):
        return fair_lengths(found.cosines, found.norms ** (power - 1), power) / found.norms
    weights = torch.ones_like(found.norms)
    if not found.is_still:
        norms = found.norms[alive]
        lengths = fair_lengths(found.cosines[alive][:, alive], norms ** (power - 1), power)
        weights[alive] = lengths / norms
    return weights
