"""Impartial multi-task learning, the half that looks at losses (IMTL-L)."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from motet.balance._balancer import Balancer, Update
from motet.balance._claims import Golden
from motet.balance._per_task import key_of
from motet.balance._view import View


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
        self.log_scales = nn.ParameterDict()
        self.add_tasks(tasks)

    def add_tasks(self, tasks: Sequence[str]) -> None:
        """Starts the scale of tasks that have none yet."""
        for task in tasks:
            if key_of(task) not in self.log_scales:
                self.log_scales[key_of(task)] = nn.Parameter(torch.zeros(()))

    def update(self, view: View) -> Update:
        """The learned scales, whose own gradients are filled here."""
        self.add_tasks(view.names)
        scales = []
        for name, loss in zip(view.names, view.losses.tolist(), strict=True):
            parameter = self.log_scales[key_of(name)]
            scale = torch.exp(parameter.detach())
            grad = (scale * loss - 1.0).to(parameter.dtype)
            parameter.grad = grad if parameter.grad is None else parameter.grad + grad
            scales.append(scale.to(view.losses))
        return Update(torch.stack(scales), heads=True)

    def reset(self) -> None:
        """Sets every scale to 1 again."""
        with torch.no_grad():
            for parameter in self.log_scales.values():
                parameter.zero_()

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,  # noqa: FBT001  torch's own signature
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Makes the scales that are to be loaded, so that a fresh instance takes any state."""
        start = f"{prefix}log_scales."
        for key, value in state_dict.items():
            if key.startswith(start) and key[len(start) :] not in self.log_scales:
                self.log_scales[key[len(start) :]] = nn.Parameter(torch.zeros_like(value))
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
