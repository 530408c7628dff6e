"""Projection of the mean gradient on the dual cone (DualProj)."""

from typing import ClassVar

from motet.balance._claims import Golden
from motet.balance._upgrad import cone_lengths
from motet.balance.engine._update import Update
from motet.balance.engine._view import View
from motet.balance.parts._gramian_method import GramianBalancer
from motet.balance.parts._solvers import directions, precision


class DualProj(GramianBalancer):
    """Moves the mean gradient to the nearest direction that harms no task.

    Choose it over `UPGrad` for one quadratic program in the place of T; tasks that the mean has lost stay lost.

        d = the projection of mean_k g_k on the cone {x : g_j·x ≥ 0 for all j}

    Args:
        gramian: "exact"; or "sketch" or a `Sketch`, for an estimate from part of the rows.
        skip_bad: leave a task with a NaN or infinite loss out of the step instead of raising.

    Cost: the Gramian, and a quadratic program of T variables.

    Source: Lopez-Paz and Ranzato, Gradient Episodic Memory for Continual Learning, NeurIPS 2017, for all tasks at once
        as in Quinton and Rey, Jacobian Descent for Multi-Objective Optimization, 2024. Departures: as in `UPGrad`.
    """

    name: ClassVar[str] = "dualproj"
    claims: ClassVar[frozenset[str]] = frozenset({
        "scale equivariant", "mean when agreeing", "never ascends", "one task is plain", "zero is harmless",
    })  # fmt: skip
    golden: ClassVar[tuple[Golden, ...]] = (
        Golden(((1.0, 0.0), (-3.0, 1.0)), (0.0, 0.5), "by hand: (−1, ½) on the half-plane x ≥ 0"),
        Golden(((1.0, 0.0), (1.0, 1.0)), (1.0, 0.5), "by hand: no conflict, the mean"),
    )

    def update(self, view: View) -> Update:
        """The weights of the projected mean."""
        found = directions(self.gramian_of(view), precision(view))
        largest = found.norms.max()
        mean = (found.norms / largest).unsqueeze(0) / len(found.norms)
        lengths = (mean + cone_lengths(found, mean))[0] * largest
        return Update((lengths / found.norms).to(view.gramian))
