"""Impartial multi-task learning, the half that looks at losses (IMTL-L)."""

from collections.abc import Sequence
from typing import ClassVar

import torch

from motet.balance._balancer import Balancer, Update
from motet.balance._claims import Golden
from motet.balance.engine._view import View
from motet.balance.parts._learned import LearnedNumbers


class IMTLL(Balancer):
    """Learns one scale a task, so that all scaled losses settle at the same size.

    Choose it over `ScaleInvariant`, where it leads to, when losses are noisy from batch to batch: the learned scale
    follows the loss slowly.

        L = Σ_k (e^(s_k) L_k − s_k),   s_k learned with the model, starting at 0;  at rest e^(s_k) = 1 / L_k

    Hand `balancer.parameters()` to the optimiser, best in a group of its own without weight decay.

    Args:
        tasks: names of the tasks. A task that is not named here is added at its first loss; name them all when the
            optimiser is built before the first step.
        skip_bad: leave a task with a NaN or infinite loss out of the step instead of raising.

    Cost: one backward pass and K numbers.

    Source: Liu et al., Towards Impartial Multi-Task Learning, ICLR 2021, with s = 0 at the start.
    """

    name: ClassVar[str] = "imtl-l"
    claims: ClassVar[frozenset[str]] = frozenset({"zero is harmless"})
    golden: ClassVar[tuple[Golden, ...]] = (
        Golden(((2.0, 0.0), (0.0, 3.0)), (2.0, 3.0), "by hand: scales are 1 at the start", losses=(8.0, 0.5)),
    )

    def __init__(self, tasks: Sequence[str] = (), *, skip_bad: bool = False) -> None:
        super().__init__(skip_bad=skip_bad)
        self.log_scales = LearnedNumbers(tasks)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that have a scale."""
        return self.log_scales.tasks

    def add_tasks(self, tasks: Sequence[str]) -> None:
        """Starts the scale of tasks that have none yet."""
        self.log_scales.add(tasks)

    def update(self, view: View) -> Update:
        """The learned scales, whose own gradients are filled here."""
        scales = torch.exp(self.log_scales.read(view.names))
        self.log_scales.add_grads(view.names, scales * view.losses.to(scales) - 1.0)
        return Update(scales.to(view.losses), heads=True)

    def reset(self) -> None:
        """Sets every scale to 1 again."""
        self.log_scales.reset()
