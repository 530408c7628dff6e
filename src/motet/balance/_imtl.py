"""Impartial multi-task learning (IMTL)."""

from collections.abc import Sequence
from typing import ClassVar

from motet.balance._imtlg import impartial_weights
from motet.balance.engine._sketch import Source
from motet.balance.engine._update import Update
from motet.balance.engine._view import View
from motet.balance.parts._gramian_method import GramianBalancer
from motet.balance.parts._learned import LearnedNumbers
from motet.balance.parts._solvers import directions, precision


class IMTL(GramianBalancer):
    """Learns a scale for each loss that brings it near one, and takes equal angles with the scaled gradients.

    Choose it over `IMTLG` when losses also differ in scale and the length of the step should not depend on it.

        IMTL-L: learn s_k by minimising Σ_k (e^(s_k) L_k − s_k), from 0;   IMTL-G: d = Σ_k α_k e^(s_k) g_k

    Hand `balancer.parameters()` to the optimiser, best in a group of its own without weight decay.

    Args:
        tasks: names of the tasks. A task that is not named here is added at its first loss; name them all when the
            optimiser is built before the first step.
        gramian: "exact"; or "sketch" or a `Sketch`, for an estimate from part of the rows.
        skip_bad: leave a task with a NaN or infinite loss out of the step instead of raising.

    Cost: as `IMTLG`, and T numbers.

    Source: Liu et al., Towards Impartial Multi-task Learning, ICLR 2021, algorithm 1. Departure: heads keep their own
        gradient, without the factor e^(s_k); optimisers with a step per coordinate do not see such a factor.
    """

    name: ClassVar[str] = "imtl"
    claims: ClassVar[frozenset[str]] = frozenset({
        "mean when agreeing", "one task is plain", "zero is harmless",
    })  # fmt: skip

    def __init__(self, tasks: Sequence[str] = (), *, gramian: Source = "exact", skip_bad: bool = False) -> None:
        super().__init__(gramian=gramian, skip_bad=skip_bad)
        self.log_scales = LearnedNumbers(tasks)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that have a scale."""
        return self.log_scales.tasks

    def add_tasks(self, tasks: Sequence[str]) -> None:
        """Starts the scale of tasks that have none yet."""
        self.log_scales.add(tasks)

    def update(self, view: View) -> Update:
        """The weights of the learned scales and of equal angles; the scales' own gradients are filled here."""
        scales = self.log_scales.read(view.names).double().cpu().exp()
        self.log_scales.add_grads(view.names, scales * view.losses.cpu() - 1)
        found = directions(self.gramian_of(view), precision(view))
        return Update((impartial_weights(found, found.norms * scales) * scales).to(view.gramian))

    def reset(self) -> None:
        """Sets every scale to 1 again."""
        super().reset()
        self.log_scales.reset()
