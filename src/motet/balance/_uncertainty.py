"""Uncertainty weighting (UW)."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import nn

from motet.balance._balancer import Balancer, Update
from motet.balance._per_task import key_of
from motet.balance._view import View


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
        self.log_variances = nn.ParameterDict()
        self.add_tasks(tasks)

    def add_tasks(self, tasks: Sequence[str]) -> None:
        """Starts the noise level of tasks that have none yet."""
        for task in tasks:
            key = key_of(task)
            if key not in self.log_variances:
                self.log_variances[key] = nn.Parameter(torch.zeros(()))

    def update(self, view: View) -> Update:
        """The weights of the learned noise levels, whose own gradients are filled here."""
        self.add_tasks(view.names)
        for name, loss in zip(view.names, view.losses.tolist(), strict=True):
            parameter = self.log_variances[key_of(name)]
            grad = torch.full_like(parameter, 0.5) - 0.5 * torch.exp(-parameter.detach()) * loss
            parameter.grad = grad if parameter.grad is None else parameter.grad + grad
        log_variances = torch.stack([self.log_variances[key_of(name)].detach() for name in view.names])
        return Update(0.5 * torch.exp(-log_variances).to(view.losses), heads=True)
