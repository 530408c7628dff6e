"""Dynamic weight average (DWA)."""

from typing import ClassVar

import torch
from torch import Tensor

from motet.balance._balancer import Balancer, Update
from motet.balance._claims import Golden
from motet.balance.engine._view import View
from motet.balance.parts._per_task import PerTask


class DWA(Balancer):
    """Weights a task by how slowly its loss fell over the last two epochs.

    Choose it for a mild correction of the plain sum that needs no tuning; it looks at losses only, once an epoch.

        r_k = L̄_k(t−1) / L̄_k(t−2);  w_k = K · exp(r_k / τ) / Σ_j exp(r_j / τ);  w = 1 in the first two epochs

    with L̄_k(t) the mean loss of task k over epoch t. A task with fewer than two epochs behind it has r = 1.

    Args:
        temperature: τ; the larger, the nearer to equal weights.
        window: an epoch ends by itself after so many steps; None leaves it to `end_epoch`.
        skip_bad: leave a task with a NaN or infinite loss out of the step instead of raising.

    Cost: one backward pass, and four numbers a task.

    Source: Liu, Johns and Davison, End-to-End Multi-Task Learning with Attention, CVPR 2019, τ = 2. Departures: epochs
        of `window` steps where nobody calls `end_epoch`; the softmax runs over the tasks of the batch.
    """

    name: ClassVar[str] = "dwa"
    claims: ClassVar[frozenset[str]] = frozenset({
        "scale equivariant", "mean when agreeing", "one task is plain", "zero is harmless"
    })  # fmt: skip
    golden: ClassVar[tuple[Golden, ...]] = (
        Golden(((2.0, 0.0), (0.0, 3.0)), (2.0, 3.0), "by hand: the first epoch is the plain sum", losses=(8.0, 0.5)),
    )

    def __init__(self, *, temperature: float = 2.0, window: int | None = 100, skip_bad: bool = False) -> None:
        super().__init__(skip_bad=skip_bad)
        self.temperature = temperature
        self.window = window
        self.sums, self.counts = PerTask(), PerTask()
        self.last, self.before = PerTask(), PerTask()
        self.steps: Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def end_epoch(self) -> None:
        """Ends an epoch: the mean losses since the last end are the newest that weights are made of."""
        for task in self.sums.tasks:
            mean = self.sums.rows([task], _ZERO) / self.counts.rows([task], _ZERO)
            if task in self.last:
                self.before.set([task], self.last.rows([task], _ZERO))
            self.last.set([task], mean)
        self.sums.reset()
        self.counts.reset()
        self.steps.zero_()

    def update(self, view: View) -> Update:
        """The weights of this epoch; the losses are noted for the next."""
        if self.window is not None and int(self.steps) >= self.window:
            self.end_epoch()
        zero = view.losses.new_zeros(())
        self.sums.set(view.names, self.sums.rows(view.names, zero) + view.losses)
        self.counts.set(view.names, self.counts.rows(view.names, zero) + 1)
        self.steps += 1
        known = torch.tensor([task in self.before for task in view.names], device=zero.device)
        last, before = self.last.rows(view.names, zero), self.before.rows(view.names, zero)
        ratios = torch.where(known & (before > 0), last / before.clamp(min=_TINY), 1.0)
        return Update(len(ratios) * torch.softmax(ratios / self.temperature, dim=0), heads=True)

    def reset(self) -> None:
        """Forgets all epochs."""
        for state in (self.sums, self.counts, self.last, self.before):
            state.reset()
        self.steps.zero_()


_ZERO = torch.zeros((), dtype=torch.float64)
_TINY = 1e-300
