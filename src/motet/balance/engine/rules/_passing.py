"""T gradients of chosen rows on their way back through one operation."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from torch import Tensor

from motet.balance.engine._graph import Node
from motet.balance.engine._layers import wide
from motet.balance.engine._rows import CoupledError, Rows


@dataclass(frozen=True)
class Passing:
    """T gradients of chosen rows on their way back through one operation.

    Args:
        node: of the graph.
        values: (T, ...) gradients at the operation's output.
        rows: where the chosen rows lie in that output.
        needed: places of the inputs that lead to a shared parameter.
    """

    node: Node
    values: Tensor
    rows: Rows
    needed: tuple[int, ...] = field(default=(0,))

    @property
    def shape(self) -> list[int]:
        """Of the whole output."""
        return list(self.node._input_metadata[0].shape)

    def shape_of(self, place: int) -> list[int]:
        """Of a whole input."""
        below, output = self.node.next_functions[place]
        return list(below._input_metadata[output].shape)

    def saved(self, tensor: Tensor) -> Tensor:
        """The chosen rows of a saved tensor that broadcasts to the output; narrow numbers made wide."""
        return wide(self.rows.like(tensor, len(self.shape)))

    def whole(self, axes: Iterable[int]) -> None:
        """Refuses an operation that mixes along the axis of the rows."""
        if self.rows.axis in {axis % max(len(self.shape), 1) for axis in axes}:
            raise CoupledError(self.node.name())


Passed = Iterable[tuple[int, Tensor, Rows]]
Rule = Callable[[Passing], Passed]


def summed(at: Passing, place: int, values: Tensor) -> tuple[int, Tensor, Rows]:
    """The gradient at an input that was broadcast to the output."""
    shape = at.shape_of(place)
    ahead = len(at.shape) - len(shape)
    stretched = [axis for axis in range(len(at.shape)) if axis < ahead or shape[axis - ahead] != at.shape[axis]]
    at.whole(stretched)
    rows = at.rows.at(at.rows.axis - ahead)
    if stretched:
        values = values.sum([axis + 1 for axis in stretched], keepdim=True)
        values = values.reshape(len(values), *rows.shape(shape))
    return place, values, rows
