"""Conflict-free gradients with momentum, one task a step (M-ConFIG)."""

from collections.abc import Iterable
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from motet.balance._balancer import Balancer, Step, Update
from motet.balance._claims import Golden
from motet.balance.engine._batch import Batch
from motet.balance.engine._view import View
from motet.balance.parts._coordinates import gradient_rows, inner_products, inverse, norms
from motet.balance.parts._per_task import PerTask


class MomentumConFIG(Balancer):
    """Keeps a running gradient of every task, renews one a step, and moves where all of them agree.

    Choose it over ConFIG when T backward passes a step are too dear: it takes one. The direction is already adapted as
    Adam's is; use it with plain SGD.

        k the task that has waited longest;  m_k ← β₁ m_k + (1 − β₁) g_k;  m̂_k = m_k / (1 − β₁^{t_k})
        d = ConFIG(m̂) = (Σ_k m̂_k·û) û,  û ∥ U⁺ 1,  U the unit rows m̂_k / ‖m̂_k‖
        f = (d (1 − β₁^t) − β₁ d' (1 − β₁^{t−1})) / (1 − β₁);  s ← β₂ s + (1 − β₂) f²;  ŝ = s / (1 − β₂^t)
        direction = d / (√ŝ + 1e-8)

    with d' the last step's d. `choose` tells the turn before the step, so that a loop need not compute other losses.

    State belongs to a coordinate: with `features=` that is a row and feature, which is right only where
    the rows are the same at every step, as in training on the full batch.

    Args:
        beta1: β₁ of the running gradients.
        beta2: β₂ of the squares.
        skip_bad: leave a task with a NaN or infinite loss out of the step instead of raising.

    Raises:
        RequestError: from `backward`, where the shared parameters are not those of the steps before.

    Cost: one backward pass, of one task; (T + 2, P) numbers kept from step to step, and (T, P) within the step.

    Source: Liu, Chu and Thuerey, ConFIG: Towards Conflict-free Training of Physics Informed Neural Networks, ICLR 2025,
        Algorithm 2, and the released code's pseudo-momentum. Departures: the turn goes to the task of the batch that
        has waited longest, so that batches may lack tasks; the other tasks' own parameters rest in this step.
    """

    name: ClassVar[str] = "momentum-config"
    place = "parameters"  # state belongs to a parameter; a row of a batch is another one next time
    golden: ClassVar[tuple[Golden, ...]] = (
        Golden(
            ((3.0, -4.0), (0.0, 2.0)), (1.0, -1.0), "by hand: the first turn is the first name's; Adam's first step"
        ),
    )

    def __init__(self, *, beta1: float = 0.9, beta2: float = 0.999, skip_bad: bool = False) -> None:
        super().__init__(skip_bad=skip_bad)
        self.beta1, self.beta2 = beta1, beta2
        self.running, self.counts, self.turns = PerTask(), PerTask(), PerTask()
        self.moments = PerTask()
        self.steps: Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def choose(self, tasks: Iterable[str]) -> str:
        """The task among these that the next step renews; asking does not use up the turn."""
        ordered = sorted(tasks)
        return ordered[int(self.turns.rows(ordered, torch.tensor(0)).argmin())]

    def take(self, batch: Batch) -> Step:
        """One step from one task's loss, the others being checked and left alone."""
        chosen = self.choose(batch.losses)
        step = super().take(batch.only([chosen]))
        return replace(step, weights={name: float(name == chosen) for name in batch.losses})

    def update(self, view: View) -> Update:
        """The adapted direction after one task's running gradient is renewed."""
        chosen = [self.choose(view.names)]
        row = gradient_rows(view)[view.names.index(chosen[0])]
        zero = torch.zeros_like(row)
        self.steps += 1
        step = int(self.steps)
        self.turns.set(chosen, self.steps.reshape(1))
        self.counts.set(chosen, self.counts.rows(chosen, view.losses.new_zeros(())) + 1)
        self.running.set(chosen, self.beta1 * self.running.rows(chosen, zero) + (1 - self.beta1) * row)
        tasks = sorted(self.running.tasks)
        corrections = 1 - self.beta1 ** self.counts.rows(tasks, view.losses.new_zeros(()))
        direction = conflict_free(self.running.rows(tasks, zero) / corrections.to(row).unsqueeze(1))
        last, squares = self.moments.rows(["direction", "squares"], zero)
        fresh = direction * (1 - self.beta1**step) - last * (self.beta1 * (1 - self.beta1 ** (step - 1)))
        squares = self.beta2 * squares + (1 - self.beta2) * (fresh / (1 - self.beta1)) ** 2
        self.moments.set(["direction", "squares"], torch.stack([direction, squares]))
        return Update(direction=direction / ((squares / (1 - self.beta2**step)).sqrt() + 1e-8))

    def reset(self) -> None:
        """Forgets all running gradients and turns."""
        for state in (self.running, self.counts, self.turns, self.moments):
            state.reset()
        self.steps.zero_()


def conflict_free(rows: Tensor) -> Tensor:
    """The direction (P,) at one angle to all rows (T, P), as long as the sum of their projections on it."""
    lengths = norms(rows)
    scale = inverse(lengths)
    cosines = inner_products(rows, rows) * scale.unsqueeze(0) * scale.unsqueeze(1)
    weights = torch.linalg.pinv(cosines, hermitian=True) @ (lengths > 0).to(cosines)
    bisector = cosines @ weights  # the unit rows' inner products with Uᵀ w
    squared = float(weights @ bisector)
    if squared <= 1e-24:
        return torch.zeros_like(rows[0])
    return ((bisector @ lengths) / squared * weights * scale).to(rows) @ rows
