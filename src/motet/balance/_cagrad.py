"""Conflict-averse gradient descent (CAGrad)."""

from typing import ClassVar

import torch
from torch import Tensor

from motet._errors import RequestError
from motet.balance._claims import Golden
from motet.balance.engine._sketch import Source
from motet.balance.engine._update import Update
from motet.balance.engine._view import View
from motet.balance.parts._gramian_method import GramianBalancer
from motet.balance.parts._solvers import Directions, directions, nonnegative_qp, precision

_MAX_STEPS = 50


class CAGrad(GramianBalancer):
    """Near the mean gradient, takes the direction that is best for the task that gains least.

    Choose it to keep the convergence of the plain mean and still help the worst task. `c` = 0 is the mean; as `c` grows
    it turns to MGDA.

        d = argmax over ‖d − g₀‖ ≤ c ‖g₀‖ of min_k g_k·d,   g₀ = mean_k g_k;   the step is d / (1 + c²)

    Args:
        c: radius of the search around the mean gradient, relative to its length, at least 0.
        gramian: "exact"; or "sketch" or a `Sketch`, for an estimate from part of the rows.
        skip_bad: leave a task with a NaN or infinite loss out of the step instead of raising.

    Cost: the Gramian, and some six quadratic programs of T variables.

    Source: Liu et al., Conflict-Averse Gradient Descent for Multi-task Learning, NeurIPS 2021, with the released code's
        scale (rescale=1) and the c = 0.4 of its experiments. Departures: the exact solution in the place of SLSQP's; a
        task without a gradient counts in the mean but not among those that must gain, where it would end training for
        all; at a Pareto point the nearest direction to g₀ that harms nobody, where any within the ball is a solution.
        Heads keep their own gradient, as there.
    """

    name: ClassVar[str] = "cagrad"
    claims: ClassVar[frozenset[str]] = frozenset({"scale equivariant", "zero is harmless"})
    golden: ClassVar[tuple[Golden, ...]] = (
        Golden(((1.0,),), (1.4 / 1.16,), "by hand: one task, (1 + c) / (1 + c²) of its gradient"),
        Golden(
            ((1.0, 0.0), (0.0, 1.0)),
            (0.7 / 1.16, 0.7 / 1.16),
            "by hand: g₀ = (½, ½), and both gain most along it",
        ),
    )

    def __init__(self, *, c: float = 0.4, gramian: Source = "exact", skip_bad: bool = False) -> None:
        super().__init__(gramian=gramian, skip_bad=skip_bad)
        if c < 0:
            message = f"CAGrad got c={c}; a radius of at least 0 was expected. Pass c=0 for the plain mean."
            raise RequestError(message)
        self.c = c

    def update(self, view: View) -> Update:
        """The weights of the mean and of what is added to it."""
        found = directions(self.gramian_of(view), precision(view))
        weights = torch.full_like(found.norms, 1 / len(found.norms))
        weights = (weights + added_weights(found, self.c)) / (1 + self.c**2)
        return Update(weights.to(view.gramian))


def added_weights(found: Directions, radius: float) -> Tensor:
    """The weights (T,) v ≥ 0 of d − g₀.

    The nearest d to g₀ with g_k·d ≥ t for all k is a non-negative quadratic program. Its distance is convex and rises
    with t, and the answer is the t at which it is the radius: Newton's method, from above.
    """
    if found.is_still:
        return torch.zeros_like(found.norms)
    largest = found.norms[found.alive].max()
    mean = found.norms / largest / len(found.norms) * found.alive
    along = found.cosines @ mean  # u_k · g₀
    limit = radius * float((mean @ along).clamp(min=0)) ** 0.5
    inverse = torch.where(found.alive, found.norms[found.alive].min() / found.norms, torch.zeros_like(along))
    if limit <= 1e-12 * float(mean.max()):
        return torch.zeros_like(along)
    gains = torch.where(found.alive, (along + limit) / inverse.clamp(min=1e-300), torch.full_like(along, torch.inf))
    least = float(gains.min())
    lengths = torch.zeros_like(along)
    for _ in range(_MAX_STEPS):
        linear = least * inverse - along
        lengths = nonnegative_qp(found.cosines, linear.unsqueeze(0))[0]
        distance = float((lengths @ linear).clamp(min=0)) ** 0.5
        if distance <= limit * (1 + 1e-12):
            break
        least -= (distance - limit) * distance / float(lengths @ inverse)
    if found.ridge * float(lengths @ lengths) > 0.01 * limit**2:
        # Only the ridge keeps the solution bounded: a Pareto point, where the most that all can gain is nothing.
        nearest = nonnegative_qp(found.cosines, -along.unsqueeze(0))[0]
        if float(nearest @ -along) <= limit**2:
            lengths = nearest
    return lengths * largest / found.norms * found.alive
