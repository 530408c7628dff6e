"""Which layers are read faster than by their weight gradients, and what their node in the graph tells of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from motet.balance.engine._graph import Node, Use
from motet.balance.engine._layers import patches, wide
from motet.balance.engine._rows import Rows
from motet.balance.engine.rules._norms import group_norm_inputs, layer_norm_inputs


@dataclass(frozen=True)
class Reader:
    """How one kind of layer is read.

    Args:
        kind: "matrix", "kernel", "table", or "scale" and "shift" of a norm.
        deltas: the node and the gradients at its output (T, ...) to rows of them (T, R, out).
        inputs: the node, which rows or None for all, and a projection (in, width) or None, to what the parameter
            multiplies: rows (R, in) or (R, width); for a scale, of the output's shape.
        channels: the output's axis of `out`; the others are rows.
    """

    kind: str
    deltas: Callable[[Node, Tensor], Tensor]
    inputs: Callable[[Node, Rows | None, Tensor | None], Tensor]
    channels: int = -1


def reader_of(uses: Sequence[Use], *, norms: bool) -> Reader | None:
    """How to read a parameter that is used so; None where it has no faster way than its gradients themselves.

    Args:
        uses: where it is used.
        norms: whether to read norm layers so too; their gradients are small, but as they are do not tell rows apart.
    """
    found = {_reader(use, norms=norms) for use in uses}
    layouts = {"TBackward0" in use.passed for use in uses}
    return found.pop() if len(found) == 1 and len(layouts) == 1 else None


def bias_of(key: int, uses: Mapping[int, list[Use]]) -> int | None:
    """The shared bias that is used beside a matrix at each of its uses, and nowhere else."""
    nodes = {use.node for use in uses[key]}
    place = {"AddmmBackward0": 0, "ConvolutionBackward0": 2}.get(uses[key][0].node.name())
    for other, found in uses.items():
        if other != key and {use.node for use in found} == nodes and all(use.place == place for use in found):
            return other
    return None


def _reader(use: Use, *, norms: bool) -> Reader | None:
    node, name = use.node, use.node.name()
    if node._input_metadata and node._input_metadata[0].dtype.is_complex:
        return None
    if name == "AddmmBackward0" and use.place == 2 and node._saved_beta == 1 and node._saved_alpha == 1:
        return _MATRIX
    if name == "MmBackward0" and use.place == 1:
        return _MATRIX
    if name == "ConvolutionBackward0" and use.place == 1 and _is_plain_convolution(node):
        return _KERNEL
    if name == "EmbeddingBackward0" and not node._saved_scale_grad_by_freq:
        return _TABLE
    if not norms or use.passed:
        return None
    if name == "NativeLayerNormBackward0" and len(node._saved_normalized_shape) == 1:
        return {1: _LAYER_SCALE, 2: _LAYER_SHIFT}.get(use.place)
    if name == "NativeGroupNormBackward0":
        return {1: _GROUP_SCALE, 2: _GROUP_SHIFT}.get(use.place)
    if name == "AddBackward0" and _is_bias(node, use.place):
        return _LAYER_SHIFT
    return None


def _is_bias(node: Node, place: int) -> bool:
    """Whether what is added is one number a channel, and channels are the last axis."""
    below, output = node.next_functions[place]
    added, whole = below._input_metadata[output].shape, node._input_metadata[0].shape
    return len(whole) > 1 and tuple(added) == (whole[-1],) and (place == 0 or node._saved_alpha == 1)


def _is_plain_convolution(node: Node) -> bool:
    return node._saved_groups == 1 and not node._saved_transposed and node._saved_input.ndim == 4


def _rows_of(tensor: Tensor, rows: Rows | None) -> Tensor:
    return wide(tensor.detach() if rows is None else rows.of(tensor))


def _as_they_are(node: Node, delta: Tensor) -> Tensor:
    del node
    return wide(delta)


def _linear_inputs(node: Node, rows: Rows | None, projection: Tensor | None) -> Tensor:
    inputs = _rows_of(node._saved_mat1 if node.name() == "AddmmBackward0" else node._saved_self, rows)
    return inputs if projection is None else inputs @ projection


def _channels_last(node: Node, delta: Tensor) -> Tensor:
    del node
    return wide(delta.flatten(3).permute(0, 1, 3, 2).flatten(1, 2))


def _convolution_inputs(node: Node, rows: Rows | None, projection: Tensor | None) -> Tensor:
    inputs, kernel = _rows_of(node._saved_input, rows), tuple(node._saved_weight.shape[2:])
    stride, padding, dilation = tuple(node._saved_stride), tuple(node._saved_padding), tuple(node._saved_dilation)
    if projection is None:
        return patches(inputs, kernel, stride=stride, padding=padding, dilation=dilation)
    # Projected patches are a convolution's outputs: they need not be laid out.
    weight = projection.T.reshape(-1, inputs.shape[1], *kernel)
    found = functional.conv2d(inputs, weight, stride=stride, padding=padding, dilation=dilation)
    return found.flatten(2).transpose(1, 2).flatten(0, 1)


def _looked_up(node: Node, delta: Tensor) -> Tensor:
    del node
    return wide(delta.flatten(1, -2))


def _indices(node: Node, rows: Rows | None, projection: Tensor | None) -> Tensor:
    del projection
    indices = node._saved_indices
    return (indices if rows is None else rows.of(indices)).flatten()


def _layer_scale_inputs(node: Node, rows: Rows | None, projection: Tensor | None) -> Tensor:
    del projection
    return layer_norm_inputs(node, rows)


def _group_scale_inputs(node: Node, rows: Rows | None, projection: Tensor | None) -> Tensor:
    del projection
    inputs, shape = group_norm_inputs(node, rows), node._saved_input.shape
    return inputs.reshape(len(inputs), *shape[1:])


def _nothing(node: Node, rows: Rows | None, projection: Tensor | None) -> Tensor:
    del node, rows, projection
    return torch.zeros(0)  # a shift multiplies nothing


_MATRIX = Reader("matrix", _as_they_are, _linear_inputs)
_KERNEL = Reader("kernel", _channels_last, _convolution_inputs, channels=1)
_TABLE = Reader("table", _looked_up, _indices)
_LAYER_SCALE = Reader("scale", _looked_up, _layer_scale_inputs)
_LAYER_SHIFT = Reader("shift", _looked_up, _nothing)
_GROUP_SCALE = Reader("scale", _channels_last, _group_scale_inputs, channels=1)
_GROUP_SHIFT = Reader("shift", _channels_last, _nothing, channels=1)
