"""Numbers that are learned with the model, one for each task."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from motet.balance.parts._per_task import key_of, task_of


class LearnedNumbers(nn.ParameterDict):
    """One parameter a task, zero at the start, made when the task first comes.

    A fresh instance takes any `state_dict`: tasks that it lacks are made.

    Args:
        tasks: that are known from the start.
    """

    def __init__(self, tasks: Sequence[str] = ()) -> None:
        super().__init__()
        self.add(tasks)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that have a number, in the order in which they came."""
        return tuple(task_of(key) for key in self)

    def add(self, tasks: Sequence[str]) -> None:
        """Starts the numbers of tasks that have none yet."""
        for task in tasks:
            if key_of(task) not in self:
                self[key_of(task)] = nn.Parameter(torch.zeros(()))

    def read(self, tasks: Sequence[str]) -> Tensor:
        """The tasks' numbers (T,), without a graph; new tasks are added."""
        self.add(tasks)
        return torch.stack([self[key_of(task)].detach() for task in tasks])

    def add_grads(self, tasks: Sequence[str], grads: Tensor) -> None:
        """Adds to `.grad`, as a backward would."""
        for task, value in zip(tasks, grads.tolist(), strict=True):
            parameter = self[key_of(task)]
            grad = torch.full_like(parameter, value)
            parameter.grad = grad if parameter.grad is None else parameter.grad + grad

    def reset(self) -> None:
        """Sets every number to zero again."""
        with torch.no_grad():
            for parameter in self.values():
                parameter.zero_()

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:  # pyrefly: ignore[bad-override]
        start = f"{prefix}task:"
        self.add([task_of(key.removeprefix(prefix)) for key in state_dict if key.startswith(start)])
        super()._load_from_state_dict(state_dict, prefix, *rest)
