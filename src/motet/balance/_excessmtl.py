"""Multi-task learning by excess risk (ExcessMTL)."""

from typing import ClassVar

import torch

from motet.balance._balancer import Balancer, Update
from motet.balance._claims import Golden
from motet.balance.engine._view import View
from motet.balance.parts._coordinates import gradient_rows
from motet.balance.parts._per_task import PerTask


class ExcessMTL(Balancer):
    """Weights a task by how far it still is from its own optimum, not by how large its loss is.

    Choose it when some tasks have noisy labels: their loss stays high for ever, and methods that look at losses chase
    it; their distance to what can be reached does not.

        S_k ← S_k + g_k²;  e_k = Σ g_k² / √(S_k + 1e-7);  w ← K · w exp(η e / e(1)) / Σ;  L = Σ_k w_k L_k

    with e_k(1) the task's first estimate.

    State belongs to a coordinate: with `features=` that is a row and feature, which is right only where
    the rows are the same at every step, as in training on the full batch.

    Args:
        step_size: η.
        skip_bad: leave a task with a NaN or infinite loss out of the step instead of raising.

    Raises:
        RequestError: from `backward`, where the shared parameters are not those of the steps before.

    Cost: T backward passes and one more of the weighted loss; (T, P) numbers kept from step to step, and as many again
        within the step.

    Source: He et al., Robust Multi-Task Learning with Excess Risks, ICML 2024, with η = 0.01 of the released code.
        Departures: the first estimate is divided by itself too, so that the first weights are equal whatever the
        losses' scales; a task that the batch lacks keeps its weight, and the others' are scaled to their number.
    """

    name: ClassVar[str] = "excessmtl"
    place = "parameters"  # state belongs to a parameter; a row of a batch is another one next time
    claims: ClassVar[frozenset[str]] = frozenset({"mean when agreeing", "one task is plain", "zero is harmless"})
    golden: ClassVar[tuple[Golden, ...]] = (
        Golden(((2.0, 0.0), (0.0, 300.0)), (2.0, 300.0), "by hand: the first step's weights are equal"),
    )

    def __init__(self, *, step_size: float = 0.01, skip_bad: bool = False) -> None:
        super().__init__(skip_bad=skip_bad)
        self.step_size = step_size
        self.squares, self.firsts, self.log_weights = PerTask(), PerTask(), PerTask()

    def update(self, view: View) -> Update:
        """The weights after this step's estimate of the excess risks."""
        rows = gradient_rows(view)
        names, zero = view.names, view.losses.new_zeros(())
        squares = self.squares.rows(names, torch.zeros_like(rows[0])) + rows**2
        excess = (rows**2 / (squares + 1e-7).sqrt()).sum(dim=1, dtype=torch.float64)
        firsts = self.firsts.rows(names, zero)
        known = torch.tensor([name in self.firsts for name in names], device=firsts.device) & (firsts > 0)
        firsts = torch.where(known, firsts, excess)
        ratios = torch.where(firsts > 0, excess / firsts.clamp(min=1e-300), 1.0)
        log_weights = self.log_weights.rows(names, zero) + self.step_size * ratios
        weights = len(names) * torch.softmax(log_weights, dim=0)
        self.squares.set(names, squares)
        self.firsts.set(names, firsts)
        # As weights of mean 1, so that a task that the batch lacks keeps its standing.
        self.log_weights.set(
            names, log_weights - torch.logsumexp(log_weights, dim=0) + zero.new_tensor(len(names)).log()
        )
        return Update(weights, heads=True)

    def reset(self) -> None:
        """Forgets all estimates and weights."""
        for state in (self.squares, self.firsts, self.log_weights):
            state.reset()
