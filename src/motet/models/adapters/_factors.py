"""The one form of every adapter: two thin factors for each task, and what they add to rows."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from motet._errors import RequestError


@dataclass(frozen=True)
class Factors:
    """What each task adds to a row x: act(x D_t + c_t) U_t + e_t.

    The first axis has T entries, or one where all tasks are alike.

    Args:
        down: (T, in, R), D.
        up: (T, R, out), U.
        inner: (T, 1, R), c, if there is one.
        outer: (T, 1, out), e, if there is one.
        relu: whether act is a ReLU; else it is nothing, and the update is a matrix.
    """

    down: Tensor
    up: Tensor
    inner: Tensor | None = None
    outer: Tensor | None = None
    relu: bool = False

    def one(self, rows: Tensor) -> Tensor:
        """Adds for rows (..., in) of the one task that there is, (..., out)."""
        return _plus(self._act(_plus(rows @ self.down[0], self.inner)) @ self.up[0], self.outer)

    def mixed(self, rows: Tensor, tasks: Tensor) -> Tensor:
        """Adds for rows (B, ..., in) of tasks (B,): through the factors of all tasks side by side, others' shares zero.

        Two products and no copy of a factor for a row, at T·R·(in + out) multiplications each.
        """
        num_tasks = max(self.down.shape[0], self.up.shape[0])
        if num_tasks == 1:
            return self.one(rows)
        own = functional.one_hot(tasks, num_tasks).to(rows.dtype).reshape(-1, *[1] * (rows.ndim - 2), num_tasks)
        narrow = (rows @ self.down.transpose(0, 1).flatten(1)).unflatten(-1, (-1, self.down.shape[2]))
        narrow = self._act(narrow if self.inner is None else narrow + self.inner.squeeze(1))
        chosen = (narrow * own.unsqueeze(-1)).flatten(-2)
        added = chosen @ self.up.expand(num_tasks, -1, -1).flatten(0, 1)
        return added if self.outer is None else added + own @ self.outer.squeeze(1).expand(num_tasks, -1)

    def each(self, rows: Tensor) -> Tensor:
        """Adds for rows (B, ..., in), where the first axis of the factors is the rows' own."""
        flat = rows.reshape(rows.shape[0], -1, rows.shape[-1])
        narrow = flat @ self.down
        narrow = self._act(narrow if self.inner is None else narrow + self.inner)
        added = narrow @ self.up
        added = added if self.outer is None else added + self.outer
        return added.reshape(*rows.shape[:-1], -1)

    def matrix(self) -> Tensor:
        """What it adds to a weight (out, in), of the one task that there is.

        Raises:
            RequestError: it is not linear in the row.
        """
        self.check_linear()
        return (self.down[0] @ self.up[0]).T

    def check_linear(self) -> None:
        """Refuses what is no matrix.

        Raises:
            RequestError: there is a ReLU inside.
        """
        if self.relu:
            message = (
                "A bottleneck has a ReLU inside and is no matrix; an update that can be added to a weight was "
                "expected. Keep it attached, or train TaskLoRA."
            )
            raise RequestError(message)

    def _act(self, values: Tensor) -> Tensor:
        return torch.relu(values) if self.relu else values


def _plus(values: Tensor, bias: Tensor | None) -> Tensor:
    return values if bias is None else values + bias[0, 0]
