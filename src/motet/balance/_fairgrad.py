"""Fair resource allocation between tasks (FairGrad)."""

from typing import ClassVar

from motet._errors import RequestError
from motet.balance._claims import Golden
from motet.balance._nashmtl import bargaining_weights
from motet.balance.engine._sketch import Source
from motet.balance.engine._update import Update
from motet.balance.engine._view import View
from motet.balance.parts._gramian_method import GramianBalancer
from motet.balance.parts._newton import clipped
from motet.balance.parts._solvers import directions, precision


class FairGrad(GramianBalancer):
    """Takes the α-fair direction: from the sum of gains (α → 0) over their product (α = 1) to the least gain (α → ∞).

    Choose it where some tasks are hard and should not be left behind; raise α to favour them more. No task ascends
    but at Pareto points, where weights have no bound and a ridge gives them one.

        d = T Σ_k w_k g_k with w > 0 and (g_k · Σ_j w_j g_j)^α = 1 / w_k

    Args:
        alpha: the kind of fairness, above 0.
        max_norm: longest direction that is let through, or None.
        gramian: "exact"; or "sketch" or a `Sketch`, for an estimate from part of the rows.
        skip_bad: leave a task with a NaN or infinite loss out of the step instead of raising.

    Cost: the Gramian, and 5 to 15 Cholesky factors (T, T).

    Source: Ban and Ji, Fair Resource Allocation in Multi-Task Learning, ICML 2024, with the released code's factor T,
        its clip at 1 and the α = 2 of its experiments. Departure: Newton's method on the convex problem that the
        equation is the optimum of, in the place of a bounded least-squares fit. Heads keep their own gradient.
    """

    name: ClassVar[str] = "fairgrad"
    claims: ClassVar[frozenset[str]] = frozenset({"zero is harmless"})
    golden: ClassVar[tuple[Golden, ...]] = (
        Golden(
            ((0.1, 0.0), (0.0, 0.1)),
            (1.0 / 2**0.5, 1.0 / 2**0.5),
            "by hand: w = ‖g‖^(−4/3) each, so T w ‖g‖ > 1, then length 1",
        ),
        Golden(((1000.0,),), (0.1,), "by hand: w = ‖g‖^(−4/3) = 1e-4"),
    )

    def __init__(
        self, *, alpha: float = 2.0, max_norm: float | None = 1.0, gramian: Source = "exact", skip_bad: bool = False
    ) -> None:
        super().__init__(gramian=gramian, skip_bad=skip_bad)
        if alpha <= 0:
            message = f"FairGrad got alpha={alpha}; a number above 0 was expected. Use EqualWeighting for alpha=0."
            raise RequestError(message)
        self.alpha, self.max_norm = alpha, max_norm

    def update(self, view: View) -> Update:
        """The weights of the fair direction."""
        found = directions(self.gramian_of(view), precision(view))
        weights = bargaining_weights(found, self.alpha) * len(found.norms) * found.alive
        return Update(clipped(weights, found, self.max_norm).to(view.gramian))
