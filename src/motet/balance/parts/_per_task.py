"""State that a method keeps for each task."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from motet._errors import RequestError


def key_of(task: str) -> str:
    """The task's name as the name of a buffer or parameter.

    Those may not hold a dot, nor be "keys" or "values" in a ParameterDict: hence the escapes and the prefix.
    """
    return "task:" + task.replace("%", "%25").replace(".", "%2E")


def task_of(key: str) -> str:
    """The task that `key_of` gave the key to."""
    return key.removeprefix("task:").replace("%2E", ".").replace("%25", "%")


class PerTask(nn.Module):
    """Keeps one tensor for each task, as buffers that come into being when a task first does.

    A fresh instance takes any `state_dict` of another: tasks that it lacks are made, tasks that it has beyond it are
    forgotten.

    Cost: T tensors; `rows` copies those that it is asked for.

    Example:
        >>> state = PerTask()
        >>> state.set(["a", "b.c"], torch.tensor([1.0, 2.0]))
        >>> state.rows(["b.c", "new"], default=torch.tensor(0.0))
        tensor([2., 0.])
    """

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that have a value, in the order in which they came."""
        return tuple(task_of(key) for key in self._buffers)

    def __contains__(self, task: str) -> bool:
        return key_of(task) in self._buffers

    def rows(self, tasks: Sequence[str], default: Tensor) -> Tensor:
        """The tasks' values, (T, ...), with `default` for a task that has none, of its dtype and on its device.

        Raises:
            RequestError: a kept value has another shape than the default.
        """
        found = [self._buffers.get(key_of(task)) for task in tasks]
        for task, value in zip(tasks, found, strict=True):
            if value is not None and value.shape != default.shape:
                message = (
                    f"Task '{task}' has a state of shape {tuple(value.shape)} and a gradient of shape "
                    f"{tuple(default.shape)}; the same shared parameters were expected at every step. Call reset() "
                    "after changing them."
                )
                raise RequestError(message)
        return torch.stack([default if value is None else value.to(default) for value in found])

    def set(self, tasks: Sequence[str], rows: Tensor) -> None:
        """Keeps a copy of one row for each task."""
        for task, row in zip(tasks, rows.detach(), strict=True):
            key = key_of(task)
            if key in self._buffers:
                self._buffers[key] = row.clone()
            else:
                self.register_buffer(key, row.clone())

    def start(self, tasks: Sequence[str], rows: Tensor) -> None:
        """Keeps a copy of one row for each task that has none yet."""
        for task, row in zip(tasks, rows, strict=True):
            if task not in self:
                self.set([task], row.unsqueeze(0))

    def drop(self, tasks: Sequence[str]) -> None:
        """Forgets some tasks."""
        for task in tasks:
            self._buffers.pop(key_of(task), None)

    def reset(self) -> None:
        """Forgets all tasks."""
        self._buffers.clear()

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
        """Makes room for the tasks that are to be loaded, just as large as they are."""
        start = f"{prefix}task:"
        loaded = {key[len(prefix) :]: value for key, value in state_dict.items() if key.startswith(start)}
        self._buffers.clear()
        for key, value in loaded.items():
            self.register_buffer(key, torch.empty_like(value))
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
