"""Smooth Tchebycheff scalarisation (STCH)."""

from typing import ClassVar

import torch
from torch import Tensor

from motet.balance._balancer import Balancer, Update
from motet.balance._claims import Golden
from motet.balance.engine._view import View
from motet.balance.parts._per_task import PerTask
from motet.balance.parts._positive import positive_losses


class STCH(Balancer):
    """Minimises a smooth maximum of the losses, each relative to where it stood after a warm-up.

    Choose it when the worst task is what counts: unlike a weighted sum it reaches every Pareto-optimal trade-off, and
    unlike the plain maximum it moves all tasks.

        warm-up:  L = Σ_k log L_k
        after:    u_k = log(L_k / n_k);  L = K μ log Σ_k exp(u_k / μ);  that is w_k = K · softmax(u / μ)_k / L_k

    with the nadir n_k the mean loss of task k over the last steps of the warm-up. A task that comes later has its own
    nadir steps, and weight 1 / L_k during them. A loss below 1e-12 is taken as one of 1e-12.

    Args:
        mu: μ, the smoothness: towards 0 the worst task alone counts.
        warm_up: steps of the sum of logarithms, the nadir's steps among them.
        nadir_steps: the nadir is the mean loss over so many steps.
        skip_bad: leave a task with a NaN or infinite loss out of the step instead of raising.

    Raises:
        RequestError: from `backward`, where a loss is negative.

    Cost: one backward pass, and two numbers a task.

    Source: Lin et al., Smooth Tchebycheff Scalarization for Multi-Objective Optimization, ICML 2024, μ = 1. Departures:
        the warm-up is counted in steps, not in epochs (released code: 4 epochs, the nadir over the next);
        preferences are equal and ideal losses are 0, as in the released experiments.
    """

    name: ClassVar[str] = "stch"
    claims: ClassVar[frozenset[str]] = frozenset({"scale invariant", "zero is harmless"})
    golden: ClassVar[tuple[Golden, ...]] = (
        Golden(((2.0, 0.0), (0.0, 3.0)), (0.5, 6.0), "by hand: the warm-up is Σ log L", losses=(4.0, 0.5)),
    )

    def __init__(self, *, mu: float = 1.0, warm_up: int = 400, nadir_steps: int = 100, skip_bad: bool = False) -> None:
        super().__init__(skip_bad=skip_bad)
        self.mu = mu
        self.warm_up = warm_up
        self.nadir_steps = nadir_steps
        self.sums, self.counts = PerTask(), PerTask()
        self.steps: Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def update(self, view: View) -> Update:
        """The sum of logarithms, and after the warm-up the gradient of the smooth maximum."""
        losses = positive_losses(view)
        zero = losses.new_zeros(())
        sums, counts = self.sums.rows(view.names, zero), self.counts.rows(view.names, zero)
        measured = counts >= self.nadir_steps
        weights = 1.0 / losses
        if bool(measured.any()) and int(self.steps) >= self.warm_up:
            ratios = torch.log(losses[measured] * counts[measured] / sums[measured])
            weights[measured] *= len(ratios) * torch.softmax(ratios / self.mu, dim=0)
        if int(self.steps) >= self.warm_up - self.nadir_steps:
            self.sums.set(view.names, torch.where(measured, sums, sums + losses))
            self.counts.set(view.names, torch.where(measured, counts, counts + 1))
        self.steps += 1
        return Update(weights, heads=True)

    def reset(self) -> None:
        """Starts the warm-up again."""
        self.sums.reset()
        self.counts.reset()
        self.steps.zero_()
