"""Uncertainty weighting (UW)."""

from collections.abc import Sequence
from typing import ClassVar

import torch

from motet.balance._balancer import Balancer, Update
from motet.balance.engine._view import View
from motet.balance.parts._learned import LearnedNumbers


class UncertaintyWeighting(Balancer):
    """Learns one noise level a task and trusts noisy tasks less.

    Choose it when the tasks' losses differ much in size or in noise and a plain sum lets one of them dominate.

        L = Σ_k ½ (e^(−s_k) L_k + s_k),   s_k = log σ_k², learned with the model, starting at 0

    Hand `balancer.parameters()` to the optimiser, best in a group of its own without weight decay.

    Args:
        tasks: names of the tasks. A task that is not named here is added at its first loss; name them all when the
            optimiser is built before the first step.
        skip_bad: leave a task with a NaN or infinite loss out of the step instead of raising.

    Cost: one backward pass and K numbers.

    Source: Kendall, Gal and Cipolla, Multi-Task Learning Using Uncertainty to Weigh Losses, CVPR 2018, with s = 0 at
        the start. Departure: one form for all kinds of task, as in the comparisons of the field.
    """

    name: ClassVar[str] = "uncertainty"

    def __init__(self, tasks: Sequence[str] = (), *, skip_bad: bool = False) -> None:
        super().__init__(skip_bad=skip_bad)
        self.log_variances = LearnedNumbers(tasks)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that have a noise level."""
        return self.log_variances.tasks

    def add_tasks(self, tasks: Sequence[str]) -> None:
        """Starts the noise level of tasks that have none yet."""
        self.log_variances.add(tasks)

    def update(self, view: View) -> Update:
        """The weights of the learned noise levels, whose own gradients are filled here."""
        weights = 0.5 * torch.exp(-self.log_variances.read(view.names))
        self.log_variances.add_grads(view.names, 0.5 - weights * view.losses.to(weights))
        return Update(weights.to(view.losses), heads=True)

    def reset(self) -> None:
        """Sets every noise level to 1 again."""
        self.log_variances.reset()
