"""Multi-objective gradient correction (MoCo)."""

from typing import ClassVar

import torch

from motet.balance._balancer import Balancer, Update
from motet.balance._claims import Golden
from motet.balance.engine._view import View
from motet.balance.parts._coordinates import gradient_rows, inner_products, inverse, norms
from motet.balance.parts._per_task import PerTask
from motet.balance.parts._simplex import project_on_simplex


class MoCo(Balancer):
    """Finds the direction of least norm from running means of the gradients, free of the bias of small batches.

    Choose it over MGDA when batches are small and noisy: MGDA's weights, found from one batch, are biased.

        ĝ_k = L_k g_k / ‖g_k‖;  y_k ← y_k − β_t (y_k − ĝ_k)
        λ ← Π_simplex(λ − γ_t (Y Yᵀ + ρ I) λ);  d = Yᵀ λ;   β_t = β / t^0.5, γ_t = γ / t^0.5

    State belongs to a coordinate: with `features=` that is a row and feature, which is right only where
    the rows are the same at every step, as in training on the full batch.

    Args:
        beta: β of the running gradients.
        gamma: γ of the weights.
        rho: ρ, which draws the weights together.
        skip_bad: leave a task with a NaN or infinite loss out of the step instead of raising.

    Raises:
        RequestError: from `backward`, where the shared parameters are not those of the steps before.

    Cost: T backward passes; (T, P) numbers kept from step to step, and as many again within the step.

    Source: Fernando et al., Mitigating Gradient Bias in Multi-objective Learning: A Provably Convergent Approach, ICLR
        2023, Algorithm 1, with the schedules and the gradients' normalisation of the released code. Departures from
        that code: the weights are projected on the simplex, as in the paper, where the code takes their softmax, which
        draws them back to nearly equal at every step; β_t counts the steps of the task itself, so that one that comes
        late does not start slow.
    """

    name: ClassVar[str] = "moco"
    place = "parameters"  # state belongs to a parameter; a row of a batch is another one next time
    golden: ClassVar[tuple[Golden, ...]] = (
        Golden(
            ((1.0, 0.0), (0.0, 3.0)),
            (0.575, 0.85),
            "by hand: Y = diag(1, 2); λ = Π(0.5 − 0.05, 0.5 − 0.2) = (0.575, 0.425)",
            losses=(2.0, 4.0),
        ),
    )

    def __init__(self, *, beta: float = 0.5, gamma: float = 0.1, rho: float = 0.0, skip_bad: bool = False) -> None:
        super().__init__(skip_bad=skip_bad)
        self.beta, self.gamma, self.rho = beta, gamma, rho
        self.running, self.counts, self.weights = PerTask(), PerTask(), PerTask()
        self.steps: torch.Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def update(self, view: View) -> Update:
        """The running gradients under the running weights."""
        rows = gradient_rows(view)
        names, zero = view.names, view.losses.new_zeros(())
        self.steps += 1
        counts = self.counts.rows(names, zero) + 1
        targets = rows * (view.losses * inverse(norms(rows))).to(rows).unsqueeze(1)
        running = self.running.rows(names, torch.zeros_like(rows[0]))
        running += (self.beta / counts.sqrt()).to(rows).unsqueeze(1) * (targets - running)
        weights = self.weights.rows(names, zero + 1.0 / len(names))
        pull = inner_products(running, running) @ weights + self.rho * weights
        weights = project_on_simplex(weights - self.gamma / float(self.steps) ** 0.5 * pull)
        for state, values in ((self.running, running), (self.counts, counts), (self.weights, weights)):
            state.set(names, values)
        return Update(direction=weights.to(running) @ running)

    def reset(self) -> None:
        """Forgets the running gradients and weights."""
        for state in (self.running, self.counts, self.weights):
            state.reset()
        self.steps.zero_()
