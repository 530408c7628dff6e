"""Every task's gradient where tasks meet, kept as what it is made of: most heads begin with a matrix or with some rows.

A head that begins with z Wᵀ asks δ W of z, with δ (B, outputs) the gradient at its first outputs. So one backward of
the losses' sum down to these outputs tells all tasks apart, and T gradients as large as z are seldom needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from motet.balance.engine._layers import grouped, inner, wide


@dataclass(frozen=True)
class Piece:
    """What one head asks of a tensor at which tasks meet: δ W, perhaps on some rows alone.

    Args:
        task: number of the task.
        delta: δ, (R, outputs), or the gradient itself where there is no matrix.
        matrix: W, (outputs, F), or None.
        rows: (R,) which rows of the tensor, or None for all.
        inputs: (R, F) the tensor itself, where the head keeps it.
    """

    task: int
    delta: Tensor
    matrix: Tensor | None = None
    rows: Tensor | None = None
    inputs: Tensor | None = None

    def value(self) -> Tensor:
        """The gradient (R, ...)."""
        return self.delta if self.matrix is None else self.delta @ self.matrix

    def places(self, count: int) -> Tensor:
        """Which rows of the tensor."""
        return torch.arange(count, device=self.delta.device) if self.rows is None else self.rows

    def some(self, index: Tensor, count: int) -> "Piece":
        """What it asks of some rows, which are then numbered by their place in `index`."""
        if self.rows is None:
            return Piece(self.task, self.delta[index], self.matrix)
        place = torch.full((count,), -1, device=index.device)
        place[index] = torch.arange(len(index), device=index.device)
        chosen = place[self.rows] >= 0
        return Piece(self.task, self.delta[chosen], self.matrix, place[self.rows[chosen]])


@dataclass
class Top:
    """The gradients of T losses at one tensor.

    Args:
        edge: where, in the graph.
        num_tasks: T.
        pieces: what the gradients are sums of.
    """

    edge: GradientEdge
    num_tasks: int
    pieces: list[Piece] = field(default_factory=list)

    @property
    def shape(self) -> torch.Size:
        """Of the tensor."""
        return torch.Size(self.edge.node._input_metadata[self.edge.output_nr].shape)

    @cached_property
    def dense(self) -> Tensor:
        """Every task's gradient, (T, B, ...)."""
        return self._filled(self.pieces, self.shape)

    def some(self, index: Tensor) -> Tensor:
        """Every task's gradient at some rows, (T, r, ...)."""
        pieces = [piece.some(index, self.shape[0]) for piece in self.pieces]
        return self._filled(pieces, torch.Size([len(index), *self.shape[1:]]))

    def _filled(self, pieces: Sequence[Piece], shape: torch.Size) -> Tensor:
        metadata = self.edge.node._input_metadata[self.edge.output_nr]
        first: list[Piece | None] = [None] * self.num_tasks
        later: list[Piece] = []
        for piece in pieces:
            if first[piece.task] is None and piece.rows is None:
                first[piece.task] = piece
            else:
                later.append(piece)
        found = torch.empty(self.num_tasks, *shape, dtype=metadata.dtype, device=metadata.device)
        for task, piece in enumerate(first):
            if piece is None:
                found[task] = 0
            elif piece.matrix is None:
                found[task] = piece.delta
            else:
                torch.mm(piece.delta, piece.matrix, out=found[task])
        for piece in later:
            found[piece.task].index_add_(0, piece.places(shape[0]), piece.value())
        return found

    def combine(self, weights: Tensor) -> Tensor:
        """The weighted sum over tasks, (B, ...)."""
        metadata = self.edge.node._input_metadata[self.edge.output_nr]
        weights = weights.to(metadata.device, metadata.dtype)
        if "dense" in self.__dict__ and not self._is_thin:
            return torch.tensordot(weights, self.dense, dims=1)
        if self._is_thin:
            deltas, matrix, tasks = self._side_by_side
            return (deltas * weights[tasks]) @ matrix
        found = torch.zeros(self.shape, dtype=metadata.dtype, device=metadata.device)
        for piece in self.pieces:
            if piece.rows is None:
                found += weights[piece.task] * piece.value()
            else:
                found.index_add_(0, piece.rows, weights[piece.task] * piece.value())
        return found

    def gramian(self) -> Tensor:
        """Inner products (T, T), float64; ⟨δ_i W_i, δ_j W_j⟩ = ⟨δ_iᵀ δ_j, W_i W_jᵀ⟩ where that is cheaper."""
        if self._is_thin:
            deltas, matrix, tasks = self._side_by_side
            num_outputs, (num_rows, width) = len(tasks), self.shape
            if num_outputs**2 * (num_rows + width) < num_rows * width * (num_outputs + self.num_tasks**2):
                deltas, matrix = wide(deltas), wide(matrix)
                return grouped((deltas.T @ deltas) * (matrix @ matrix.T), tasks, tasks, self.num_tasks)
        return inner(self.dense)

    def owners(self) -> Tensor | None:
        """The one task (B,) of each row, -1 where none has a gradient; None without rows or with shared ones."""
        if not self.shape:
            return None
        found = torch.full((self.shape[0],), -1, device=self.edge.node._input_metadata[0].device)
        for piece in self.pieces:
            rows = piece.places(self.shape[0])[(piece.delta != 0).flatten(1).any(dim=1)]
            if bool(((found[rows] != piece.task) & (found[rows] >= 0)).any()):
                return None
            found[rows] = piece.task
        return found

    @property
    def _is_thin(self) -> bool:
        return bool(self.pieces) and all(piece.matrix is not None and piece.rows is None for piece in self.pieces)

    @cached_property
    def _side_by_side(self) -> tuple[Tensor, Tensor, Tensor]:
        """All δ as (B, all outputs), all W as (all outputs, F), and the task of each output."""
        tasks = [torch.full((piece.delta.shape[1],), piece.task) for piece in self.pieces]
        deltas = torch.cat([piece.delta for piece in self.pieces], dim=1)
        matrices = torch.cat([piece.matrix for piece in self.pieces if piece.matrix is not None])
        return deltas, matrices, torch.cat(tasks).to(deltas.device)


def shared_owners(tops: Sequence[Top]) -> Tensor | None:
    """The one task (B,) that has a gradient at each row of all these tensors; None where a row has several."""
    found = tops[0].owners()
    for top in tops[1:]:
        other = top.owners()
        if found is None or other is None or len(found) != len(other):
            return None
        if bool(((found != other) & (found >= 0) & (other >= 0)).any()):
            return None
        found = torch.maximum(found, other)
    return found
