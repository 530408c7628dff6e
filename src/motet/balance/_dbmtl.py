"""Dual-balancing multi-task learning (DB-MTL)."""

from typing import ClassVar

import torch

from motet.balance._balancer import Balancer, Update
from motet.balance._claims import Golden
from motet.balance.engine._view import View
from motet.balance.parts._coordinates import gradient_rows, inverse, norms
from motet.balance.parts._per_task import PerTask
from motet.balance.parts._positive import positive_losses


class DBMTL(Balancer):
    """Balances losses by their logarithm, and gradients by scaling each to the length of the longest.

    Choose it among the methods of gradients when the losses' sizes differ and no task may drown; `beta=0` keeps no
    state and never forms the Jacobian.

        g_k = ∂ log L_k;  m_k ← g_k + (β / t^σ) (m_k − g_k);  d = Σ_k (max_j ‖m_j‖ / ‖m_k‖) m_k

    A loss below 1e-12 is taken as one of 1e-12.

    With β > 0, state belongs to a coordinate: with `features=` that is a row and feature, which is right only where
    the rows are the same at every step, as in training on the full batch.

    Args:
        beta: β, the part of the running gradient that stays.
        sigma: σ, by which that part shrinks with the steps.
        skip_bad: leave a task with a NaN or infinite loss out of the step instead of raising.

    Raises:
        RequestError: from `backward`, where a loss is negative, or where β > 0 and the shared parameters are not those
            of the steps before.

    Cost: with β = 0, the Gramian and one weighted backward pass, at the parameters or at features. Else T backward
        passes; (T, P) numbers kept from step to step, and as many again within the step. Heads take one more pass.

    Source: Lin et al., Dual-Balancing for Multi-Task Learning, 2023, with β = 0.9 and σ = 0 of LibMTL. The
        tasks' own parameters get the gradient of the logarithm too. Departures: the floor under the losses in the
        place of 1e-8 added; t counts the task's own steps.
    """

    name: ClassVar[str] = "db-mtl"
    place = "parameters"  # state belongs to a parameter; a row of a batch is another one next time
    claims: ClassVar[frozenset[str]] = frozenset({"scale invariant", "zero is harmless"})
    golden: ClassVar[tuple[Golden, ...]] = (
        Golden(
            ((4.0, 0.0), (0.0, 3.0)),
            (0.6, 0.6),
            "by hand: log gradients (2, 0) and (0, 6), a tenth of them, both at length 0.6",
            losses=(2.0, 0.5),
        ),
    )

    def __init__(self, *, beta: float = 0.9, sigma: float = 0.0, skip_bad: bool = False) -> None:
        super().__init__(skip_bad=skip_bad)
        self.beta, self.sigma = beta, sigma
        self.running, self.counts = PerTask(), PerTask()

    def update(self, view: View) -> Update:
        """The running gradients of the logarithms, all at the longest one's length."""
        losses = positive_losses(view)
        if self.beta == 0:
            lengths = view.gramian.diagonal().clamp(min=0).sqrt() / losses
            return Update(lengths.max() * inverse(lengths) / losses, heads=1.0 / losses)
        rows = gradient_rows(view)
        rows = rows / losses.to(rows).unsqueeze(1)
        counts = self.counts.rows(view.names, losses.new_zeros(())) + 1
        running = self.running.rows(view.names, torch.zeros_like(rows[0]))
        running = rows + (self.beta / counts**self.sigma).to(rows).unsqueeze(1) * (running - rows)
        self.running.set(view.names, running)
        self.counts.set(view.names, counts)
        lengths = norms(running)
        return Update(direction=(lengths.max() * inverse(lengths)).to(running) @ running, heads=1.0 / losses)

    def reset(self) -> None:
        """Forgets the running gradients."""
        self.running.reset()
        self.counts.reset()
