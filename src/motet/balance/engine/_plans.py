"""How each shared parameter is read: at which edges of the graph, and what is built of the gradients there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from motet.balance.engine._graph import Graph, Node, Use
from motet.balance.engine._layers import EmbeddingLayer, Layer, LinearLayer, PlainLayer, wide
from motet.balance.engine._owned import OwnedLinearLayer
from motet.balance.engine._readers import Reader, bias_of, reader_of
from motet.balance.engine._rows import Rows
from motet.balance.engine._top_pass import Key, key_of


@dataclass(frozen=True)
class Delta:
    """Gradients at one edge.

    Args:
        values: (T, ...) for every task; or (1, ...) where each place belongs to one task.
        owners: numbers of these tasks, to be broadcast over values[0]; None where every task has its own values.
        rows: which rows of the batch these are, or None for all.
    """

    values: Tensor
    owners: Tensor | None = None
    rows: Rows | None = None

    def dense(self, num_tasks: int) -> Tensor:
        """Every task's gradient (T, ...)."""
        if self.owners is None:
            return self.values
        owners = self.owners.expand(self.values.shape[1:]).unsqueeze(0)
        return self.values.new_zeros(num_tasks, *self.values.shape[1:]).scatter_(0, owners, self.values)


Deltas = Mapping[Key, Delta]


@dataclass(frozen=True)
class Plan:
    """How a parameter, and the bias beside it, is read.

    Args:
        edges: whose gradients it needs.
        parameter: the parameter.
        bias: id of the bias, or None.
        reader: how the layer is read; None where the gradient of the parameter itself is.
        is_transposed: whether the parameter is a matrix laid out (in, out).
    """

    edges: tuple[GradientEdge, ...]
    parameter: Tensor
    bias: int | None = None
    reader: Reader | None = None
    is_transposed: bool = False

    @property
    def parameters(self) -> tuple[int, ...]:
        """Ids of what it reads."""
        return (id(self.parameter),) if self.bias is None else (id(self.parameter), self.bias)

    @property
    def is_product(self) -> bool:
        """Whether the gradient of the parameter is one product of matrices."""
        return self.reader is not None and self.reader.kind in {"matrix", "kernel"} and len(self.edges) == 1

    def build(self, deltas: Deltas, num_tasks: int, projection: Tensor | None = None) -> Layer:
        """The layer, from the gradients at its edges.

        Args:
            deltas: by edge.
            num_tasks: T.
            projection: (in, width) of the layer's inputs, for inner products alone.
        """
        parts = [deltas[key_of(edge)] for edge in self.edges]
        if self.reader is None:
            return PlainLayer(parts[0].dense(num_tasks), id(self.parameter))
        nodes = [edge.node for edge in self.edges]
        pairs = list(zip(nodes, parts, strict=True))
        if self.reader.kind in {"scale", "shift"}:
            sums = [_sums(self.reader, node, part, num_tasks) for node, part in pairs]
            return PlainLayer(torch.stack(sums).sum(dim=0), id(self.parameter))
        inputs = _joined([self.reader.inputs(node, part.rows, projection) for node, part in pairs], dim=0)
        values = [self.reader.deltas(node, part.values) for node, part in pairs]
        owners = [owner for node, part in pairs if (owner := _owners(self.reader, node, part)) is not None]
        if self.reader.kind in {"matrix", "kernel"} and len(owners) == len(parts):
            layer: Layer = OwnedLinearLayer(
                _joined(values, dim=1)[0], _joined(owners, dim=0), inputs, num_tasks, id(self.parameter), self.bias,
                self.is_transposed,
            )  # fmt: skip
        else:
            dense = [
                _spread(rows, _owners(self.reader, node, part), num_tasks)
                for rows, (node, part) in zip(values, pairs, strict=True)
            ]
            layer = self._of_rows(_joined(dense, dim=1), inputs)
        return _Reshaped(layer, id(self.parameter), self.parameter.shape) if self.reader.kind == "kernel" else layer

    def _of_rows(self, deltas: Tensor, inputs: Tensor) -> Layer:
        """The layer of every task's rows (T, R, out)."""
        key, kind = id(self.parameter), "" if self.reader is None else self.reader.kind
        if kind == "table":
            node: Node = self.edges[0].node
            # torch keeps "no padding index" as the largest unsigned number.
            if 0 <= node._saved_padding_idx < 2**62:
                deltas = deltas * (inputs != node._saved_padding_idx).unsqueeze(-1)
            nodes: list[Node] = [edge.node for edge in self.edges]
            sparse = all(node._saved_sparse for node in nodes)
            return EmbeddingLayer(deltas, inputs, key, len(self.parameter), sparse)
        return LinearLayer(deltas, inputs, key, self.bias, self.is_transposed)


def make_plans(graph: Graph, shared: Mapping[int, Tensor], *, norms: bool) -> list[Plan]:
    """One plan for each group of shared parameters that the losses depend on.

    Args:
        graph: of the losses.
        shared: parameters by id.
        norms: whether the scales and shifts of norm layers are read from the norm's output too.
    """
    uses = {key: graph.uses.get(key, []) for key in shared if key in graph.leaves}
    readers = {key: reader_of(found, norms=norms) for key, found in uses.items()}
    biases = {key: bias for key, reader in readers.items() if reader and (bias := bias_of(key, uses)) is not None}
    return [_plan(readers[key], uses[key], shared[key], biases.get(key)) for key in uses if key not in biases.values()]


def _plan(reader: Reader | None, uses: Sequence[Use], parameter: Tensor, bias: int | None) -> Plan:
    if reader is None:
        return Plan((get_gradient_edge(parameter),), parameter)
    transposed = reader.kind == "matrix" and "TBackward0" not in uses[0].passed
    return Plan(tuple(GradientEdge(use.node, 0) for use in uses), parameter, bias, reader, transposed)


def _joined(parts: Sequence[Tensor], dim: int) -> Tensor:
    """The parts side by side; a single one is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=dim)


def _owners(reader: Reader, node: Node, delta: Delta) -> Tensor | None:
    """The task of each row (R,), or None where every task has its own rows."""
    if delta.owners is None:
        return None
    shape = list(delta.values.shape[1:])
    shape[reader.channels] = 1
    return reader.deltas(node, delta.owners.expand(shape).unsqueeze(0))[0, :, 0]


def _spread(rows: Tensor, owners: Tensor | None, num_tasks: int) -> Tensor:
    """Every task's rows (T, R, out), where each row (1, R, out) belongs to one, or as they are."""
    if owners is None:
        return rows
    found = rows.new_zeros(num_tasks, *rows.shape[1:])
    found[owners, torch.arange(len(owners), device=rows.device)] = rows[0]
    return found


def _sums(reader: Reader, node: Node, delta: Delta, num_tasks: int) -> Tensor:
    """Every task's gradient (T, C) of one number a channel."""
    products = wide(delta.values)
    if reader.kind == "scale":
        products = products * reader.inputs(node, delta.rows, None)
    channels = reader.channels % (products.ndim - 1) + 1
    owners = _owners(reader, node, delta)
    if owners is None:
        return products.sum([axis for axis in range(1, products.ndim) if axis != channels])
    rows = products[0].movedim(channels - 1, -1).flatten(0, -2)
    return rows.new_zeros(num_tasks, rows.shape[1]).index_add_(0, owners, rows)


class _Reshaped(Layer):
    """A convolution's kernel: a linear layer over patches, laid out as the kernel is."""

    def __init__(self, layer: Layer, key: int, shape: torch.Size) -> None:
        self.layer, self.key, self.shape = layer, key, shape

    @property
    def core(self) -> Layer:
        return self.layer

    def gramian(self) -> Tensor:
        return self.layer.gramian()

    def combine(self, weights: Tensor) -> dict[int, Tensor]:
        found = self.layer.combine(weights)
        return found | {self.key: found[self.key].reshape(self.shape)}

    def rows(self) -> dict[int, Tensor]:
        found = self.layer.rows()
        return found | {self.key: found[self.key].reshape(-1, *self.shape)}
