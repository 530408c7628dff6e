"""Unconflicting projection of gradients (UPGrad)."""

from typing import ClassVar

import torch
from torch import Tensor

from motet.balance._claims import Golden
from motet.balance.engine._update import Update
from motet.balance.engine._view import View
from motet.balance.parts._gramian_method import GramianBalancer
from motet.balance.parts._solvers import Directions, directions, nonnegative_qp, precision


class UPGrad(GramianBalancer):
    """Moves each gradient to the nearest direction that harms no task, and averages what comes out.

    Choose it first among the methods of gradients: no task ascends, no task is forgotten, and a larger gradient counts
    for more in proportion, as in a plain mean.

        d = mean_k of the projection of g_k on the cone {x : g_j·x ≥ 0 for all j}

    Args:
        gramian: "exact"; or "sketch" or a `Sketch`, for an estimate from part of the rows.
        skip_bad: leave a task with a NaN or infinite loss out of the step instead of raising.

    Cost: the Gramian, and T quadratic programs of T variables, solved together.

    Source: Quinton and Rey, Jacobian Descent for Multi-Objective Optimization, 2024. Departures: exact block pivoting
        on cosines, with a ridge of the size of rounding, in the place of a solver with a ridge of 1e-4 that lets small
        conflicts through and stops where the Gramian's trace is below 1e-4. Heads keep their own gradient, as there.
    """

    name: ClassVar[str] = "upgrad"
    claims: ClassVar[frozenset[str]] = frozenset({
        "scale equivariant", "mean when agreeing", "never ascends", "one task is plain", "zero is harmless",
    })  # fmt: skip
    golden: ClassVar[tuple[Golden, ...]] = (
        Golden(((1.0, 0.0), (-1.0, 1.0)), (0.25, 0.75), "by hand: the mean of (½, ½) and (0, 1)"),
        Golden(((1.0, 0.0), (1.0, 1.0)), (1.0, 0.5), "by hand: no conflict, the mean"),
        Golden(((1.0, 0.0), (-1.0, 0.0), (0.0, 3.0)), (0.0, 1.0), "by hand: the cone is a ray"),
    )

    def update(self, view: View) -> Update:
        """The weights of the mean of the projections."""
        found = directions(self.gramian_of(view), precision(view))
        shares = torch.eye(len(found.norms), dtype=torch.float64)
        lengths = found.norms @ (shares + cone_lengths(found, shares)) / len(found.norms)
        return Update((lengths / found.norms).to(view.gramian))


def cone_lengths(found: Directions, vectors: Tensor) -> Tensor:
    """What to add to vectors Σ_k x_k u_k, given as rows (N, T) of x, to project them on the dual cone: (N, T) ≥ 0."""
    linear = -(vectors @ found.cosines) * found.alive
    return nonnegative_qp(found.cosines, linear)
