"""Where the rows of a batch lie in a tensor, however it is laid out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor


class CoupledError(Exception):
    """Why rows cannot be told apart: mostly, an operation is not known to keep them apart."""


@dataclass(frozen=True)
class Rows:
    """Some rows of a batch in a tensor: one axis is outer × count × inner places, and rows are the middle factor.

    Args:
        count: B, rows of the batch.
        index: (r,) those that are chosen.
        axis: on which rows lie.
        outer: how often the rows are repeated on that axis.
        inner: how many places in a row belong to one row.
    """

    count: int
    index: Tensor
    axis: int = 0
    outer: int = 1
    inner: int = 1

    def of(self, tensor: Tensor, axis: int | None = None) -> Tensor:
        """The chosen rows of a whole tensor."""
        axis = self.axis if axis is None else axis
        parts = tensor.detach().unflatten(axis, (self.outer, self.count, self.inner))
        return parts.index_select(axis + 1, self.index.to(tensor.device)).flatten(axis, axis + 2)

    def like(self, tensor: Tensor, num_axes: int) -> Tensor:
        """The chosen rows of a tensor that broadcasts to one of `num_axes` axes."""
        axis = self.axis - (num_axes - tensor.ndim)
        return tensor.detach() if axis < 0 or tensor.shape[axis] == 1 else self.of(tensor, axis)

    def shape(self, whole: Sequence[int]) -> list[int]:
        """The shape of the chosen rows of a tensor of this shape."""
        size = self.outer * len(self.index) * self.inner
        return [*whole[: self.axis], size, *whole[self.axis + 1 :]]

    def labels(self, values: Tensor, num_axes: int) -> Tensor:
        """One value (B,) a row, laid out to broadcast over a whole tensor of `num_axes` axes."""
        places = values.repeat_interleave(self.inner).repeat(self.outer)
        return places.reshape([-1 if axis == self.axis else 1 for axis in range(num_axes)])

    def at(self, axis: int) -> "Rows":
        """The same rows, on another axis."""
        return replace(self, axis=axis)

    def viewed(self, before: Sequence[int], after: Sequence[int]) -> "Rows":
        """Where the rows lie when a tensor of one shape is seen in another: its flat order is the same.

        Raises:
            CoupledError: no axis of the new shape holds whole rows.
        """
        ahead = math.prod(before[: self.axis]) * self.outer
        behind = math.prod(before[self.axis + 1 :]) * self.inner
        for axis, size in enumerate(after):
            outer, rest = divmod(ahead, math.prod(after[:axis]) or 1)
            inner, left = divmod(behind, math.prod(after[axis + 1 :]) or 1)
            if rest == left == 0 and outer and inner and outer * self.count * inner == size:
                return replace(self, axis=axis, outer=outer, inner=inner)
        message = f"a view of {tuple(before)} as {tuple(after)}"
        raise CoupledError(message)
