"""Norm layers."""

from torch import Tensor

from motet.balance.engine._graph import Node
from motet.balance.engine._layers import wide
from motet.balance.engine._rows import CoupledError, Rows
from motet.balance.engine.rules._passing import Passed, Passing, Rule


def layer_norm_inputs(node: Node, rows: Rows | None) -> Tensor:
    """What the scale of a layer norm multiplies."""
    inputs, mean, scale = node._saved_input, node._saved_result1, node._saved_result2
    if rows is not None:
        inputs, mean, scale = rows.of(inputs), rows.of(mean), rows.of(scale)
    return (wide(inputs) - mean) * scale


def group_norm_inputs(node: Node, rows: Rows | None) -> Tensor:
    """What the scale of a group norm multiplies, as (N, groups, channels of the group · places)."""
    inputs, mean, scale = node._saved_input, node._saved_result1, node._saved_result2
    if rows is not None:
        inputs, mean, scale = rows.of(inputs), rows.of(mean), rows.of(scale)
    grouped = wide(inputs).flatten(1).unflatten(1, (node._saved_group, -1))
    return (grouped - mean.unsqueeze(2)) * scale.unsqueeze(2)


def _normalised(values: Tensor, inputs: Tensor, scale: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Through (x − mean) · scale over `dims`, with `inputs` the result."""
    mean, along = values.mean(dims, keepdim=True), (values * inputs).mean(dims, keepdim=True)
    return (values * scale).sub_(scale * mean).addcmul_(inputs, scale * along, value=-1)


def _layer_norm(at: Passing) -> Passed:
    num_axes = len(at.node._saved_normalized_shape)
    at.whole(range(-num_axes, 0))
    values = at.values if at.node._saved_weight is None else at.values * wide(at.node._saved_weight.detach())
    dims = tuple(range(-num_axes, 0))
    scale = at.rows.of(at.node._saved_result2)
    yield 0, _normalised(values, layer_norm_inputs(at.node, at.rows), scale, dims), at.rows


def _group_norm(at: Passing) -> Passed:
    at.whole(range(1, len(at.shape)))
    node, values = at.node, at.values
    if node._saved_weight is not None:
        values = values * wide(node._saved_weight.detach()).reshape(-1, *[1] * (values.ndim - 3))
    inputs = group_norm_inputs(node, at.rows)
    scale = at.rows.of(node._saved_result2).unsqueeze(2)
    passed = _normalised(values.reshape(len(values), *inputs.shape), inputs, scale, (-1,))
    yield 0, passed.reshape(values.shape), at.rows


def _batch_norm(at: Passing) -> Passed:
    node = at.node
    if node._saved_training:
        raise CoupledError(node.name())
    at.whole([1])
    scale = (node._saved_running_var + node._saved_eps).rsqrt()
    scale = scale if node._saved_weight is None else scale * node._saved_weight.detach()
    yield 0, at.values * scale.reshape(-1, *[1] * (len(at.shape) - 2)), at.rows


NORMS: dict[str, Rule] = {
    "NativeLayerNormBackward0": _layer_norm, "NativeGroupNormBackward0": _group_norm,
    "NativeBatchNormBackward0": _batch_norm,
}  # fmt: skip
