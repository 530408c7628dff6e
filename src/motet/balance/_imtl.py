"""Impartial multi-task learning (IMTL)."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from motet.balance._balancer import Balancer, Update
from motet.balance._imtlg import impartial_weights
from motet.balance._solvers import directions, precision
from motet.balance._view import View


class IMTL(Balancer):
    """Learns a scale for each loss that brings it near one, and takes equal angles with the scaled gradients.

    Choose it over `IMTLG` when losses also differ in scale and the length of the step should not depend on it.

        IMTL-L: learn s_k by minimising Σ_k (e^(s_k) L_k − s_k), from 0;   IMTL-G: d = Σ_k α_k e^(s_k) g_k

    Hand `balancer.parameters()` to the optimiser, best in a group of its own without weight decay.

    Args:
        tasks: names of the tasks. A task that is not named here is added at its first loss; name them all when the
            optimiser is built before the first step.
        skip_bad: leave a task with a NaN or infinite loss out of the step instead of raising.

    Cost: as `IMTLG`, and T numbers.

    Source: Liu et al., Towards Impartial Multi-task Learning, ICLR 2021, algorithm 1. Departure: heads keep their own
        gradient, without the factor e^(s_k); optimisers with a step per coordinate do not see such a factor.
    """

    name: ClassVar[str] = "imtl"
    claims: ClassVar[frozenset[str]] = frozenset({
        "mean when agreeing", "one task is plain", "zero is harmless",
    })  # fmt: skip

    def __init__(self, tasks: Sequence[str] = (), *, skip_bad: bool = False) -> None:
        super().__init__(skip_bad=skip_bad)
        self.log_scales = nn.ParameterDict()
        self.add_tasks(tasks)

    def add_tasks(self, tasks: Sequence[str]) -> None:
        """Starts the scale of tasks that have none yet."""
        for task in tasks:
            self._add_key(_key(task))

    def _add_key(self, key: str) -> None:
        if key not in self.log_scales:
            self.log_scales[key] = nn.Parameter(torch.zeros(()))

    def update(self, view: View) -> Update:
        """The weights of the learned scales and of equal angles; the scales' own gradients are filled here."""
        self.add_tasks(view.names)
        parameters = [self.log_scales[_key(name)] for name in view.names]
        scales = torch.stack([parameter.detach().double().cpu() for parameter in parameters]).exp()
        for parameter, value in zip(parameters, (scales * view.losses.cpu() - 1).tolist(), strict=True):
            grad = torch.full_like(parameter, value)
            parameter.grad = grad if parameter.grad is None else parameter.grad + grad
        found = directions(view.gramian, precision(view))
        return Update((impartial_weights(found, found.norms * scales) * scales).to(view.gramian))

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:  # pyrefly: ignore[bad-override]
        start = f"{prefix}log_scales."
        for key in state_dict:
            if key.startswith(start):
                self._add_key(key.removeprefix(start))
        super()._load_from_state_dict(state_dict, prefix, *rest)


def _key(task: str) -> str:
    # Names of parameters may not hold a dot; and a prefix keeps a task called "keys" or "values" legal.
    return "task:" + task.replace("%", "%25").replace(".", "%2E")
