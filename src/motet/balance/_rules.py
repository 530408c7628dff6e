"""How single operations pass T gradients of chosen rows back: only operations listed here are known to keep rows apart.

Each rule reads what its node of the graph has saved, takes the chosen rows of it, and gives for each input its place,
the gradients (T, ...) and where the rows lie there. An operation that mixes rows, or that is not listed, raises.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from motet.balance._graph import Node, signed
from motet.balance._layers import wide
from motet.balance._rows import CoupledError, Rows

aten = torch.ops.aten


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


def _through(at: Passing) -> Passed:
    yield 0, at.values, at.rows


def _view(at: Passing) -> Passed:
    shape = at.shape_of(0)
    rows = at.rows.viewed(at.shape, shape)
    yield 0, at.values.reshape(len(at.values), *rows.shape(shape)), rows


def _permute(at: Passing) -> Passed:
    dims = [signed(dim) % len(at.shape) for dim in at.node._saved_dims]
    back = [dims.index(axis) + 1 for axis in range(len(dims))]
    yield 0, at.values.permute(0, *back), at.rows.at(dims[at.rows.axis])


def _transpose(at: Passing) -> Passed:
    first, second = (0, 1) if at.node.name() == "TBackward0" else (at.node._saved_dim0, at.node._saved_dim1)
    first, second = signed(first) % len(at.shape), signed(second) % len(at.shape)
    axis = {first: second, second: first}.get(at.rows.axis, at.rows.axis)
    yield 0, at.values.transpose(first + 1, second + 1), at.rows.at(axis)


def _summed(at: Passing, place: int, values: Tensor) -> tuple[int, Tensor, Rows]:
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


def _expand(at: Passing) -> Passed:
    yield _summed(at, 0, at.values)


def _add(at: Passing) -> Passed:
    sign = -1 if at.node.name().startswith("Sub") else 1
    for place in at.needed:
        factor = sign * at.node._saved_alpha if place == 1 else 1
        yield _summed(at, place, at.values if factor == 1 else at.values * factor)


def _multiply(at: Passing) -> Passed:
    for place in at.needed:
        other = at.node._saved_other if place == 0 else at.node._saved_self
        yield _summed(at, place, at.values * (at.saved(other) if isinstance(other, Tensor) else other))


def _divide(at: Passing) -> Passed:
    if at.needed != (0,):
        raise CoupledError(at.node.name())
    other = at.node._saved_other
    yield _summed(at, 0, at.values / (at.saved(other) if isinstance(other, Tensor) else other))


def _negate(at: Passing) -> Passed:
    yield 0, -at.values, at.rows


def _by(derivative: Callable[[Passing], Tensor]) -> Rule:
    """An operation on each number by itself, from its derivative at the chosen rows."""

    def rule(at: Passing) -> Passed:
        yield 0, at.values * derivative(at), at.rows

    return rule


def _slope(backward: Callable[..., Tensor], *names: str) -> Rule:
    """An operation whose backward torch has, with these saved settings."""

    def derivative(at: Passing) -> Tensor:
        inputs = at.saved(at.node._saved_self)
        return backward(torch.ones_like(inputs), inputs, *(getattr(at.node, f"_saved_{name}") for name in names))

    return _by(derivative)


def _gelu(at: Passing) -> Passed:
    inputs = at.saved(at.node._saved_self)
    slope = aten.gelu_backward(torch.ones_like(inputs), inputs, approximate=at.node._saved_approximate)
    yield 0, at.values * slope, at.rows


def _linear(at: Passing) -> Passed:
    node = at.node
    place, alpha = (1, node._saved_alpha) if node.name() == "AddmmBackward0" else (0, 1)
    at.whole([1])
    for needed in at.needed:
        if needed != place:  # a matrix that is computed: its gradient adds up over rows
            raise CoupledError(node.name())
        matrix = wide(node._saved_mat2.detach()).T
        yield place, at.values @ (matrix if alpha == 1 else matrix * alpha), at.rows


def _batched_product(at: Passing) -> Passed:
    node = at.node
    ahead = 1 if node.name() == "BaddbmmBackward0" else 0
    if ahead and (node._saved_alpha != 1 or node._saved_beta != 1):
        raise CoupledError(node.name())
    left, right = (node._saved_batch1, node._saved_batch2) if ahead else (node._saved_self, node._saved_mat2)
    if at.rows.axis == 2 or (at.rows.axis == 1 and ahead + 1 in at.needed):
        raise CoupledError(node.name())
    for place in at.needed:
        if place == ahead:
            other = at.rows.of(right) if at.rows.axis == 0 else right.detach()
            yield place, at.values @ wide(other).transpose(1, 2), at.rows
        elif place == ahead + 1:
            yield place, wide(at.rows.of(left)).transpose(1, 2) @ at.values, at.rows
        else:
            yield _summed(at, place, at.values)


def _reduced(at: Passing) -> Passed:
    """A sum or a mean over some axes."""
    whole = at.shape_of(0)
    dims = sorted({signed(dim) % len(whole) for dim in at.node._saved_dim} or range(len(whole)))
    kept = [axis for axis in range(len(whole)) if axis not in dims]
    axis = at.rows.axis if at.node._saved_keepdim else kept[at.rows.axis] if kept else 0
    if axis in dims:
        raise CoupledError(at.node.name())
    rows = at.rows.at(axis)
    shape = rows.shape(whole)
    values = at.values.reshape(len(at.values), *(1 if place in dims else size for place, size in enumerate(shape)))
    if at.node.name().startswith("Mean"):
        values = values / math.prod(whole[dim] for dim in dims)
    yield 0, values.expand(len(values), *shape), rows


def _normalised(values: Tensor, inputs: Tensor, scale: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Through (x − mean) · scale over `dims`, with `inputs` the result."""
    mean, along = values.mean(dims, keepdim=True), (values * inputs).mean(dims, keepdim=True)
    return (values * scale).sub_(scale * mean).addcmul_(inputs, scale * along, value=-1)


def layer_norm_inputs(node: Node, rows: Rows | None) -> Tensor:
    """What the scale of a layer norm multiplies."""
    inputs, mean, scale = node._saved_input, node._saved_result1, node._saved_result2
    if rows is not None:
        inputs, mean, scale = rows.of(inputs), rows.of(mean), rows.of(scale)
    return (wide(inputs) - mean) * scale


def _layer_norm(at: Passing) -> Passed:
    num_axes = len(at.node._saved_normalized_shape)
    at.whole(range(-num_axes, 0))
    values = at.values if at.node._saved_weight is None else at.values * wide(at.node._saved_weight.detach())
    dims = tuple(range(-num_axes, 0))
    scale = at.rows.of(at.node._saved_result2)
    yield 0, _normalised(values, layer_norm_inputs(at.node, at.rows), scale, dims), at.rows


def group_norm_inputs(node: Node, rows: Rows | None) -> Tensor:
    """What the scale of a group norm multiplies, as (N, groups, channels of the group · places)."""
    inputs, mean, scale = node._saved_input, node._saved_result1, node._saved_result2
    if rows is not None:
        inputs, mean, scale = rows.of(inputs), rows.of(mean), rows.of(scale)
    grouped = wide(inputs).flatten(1).unflatten(1, (node._saved_group, -1))
    return (grouped - mean.unsqueeze(2)) * scale.unsqueeze(2)


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


def _convolution(at: Passing) -> Passed:
    node = at.node
    at.whole(range(1, len(at.shape)))
    if node._saved_transposed or at.needed != (0,):
        raise CoupledError(node.name())
    shape = at.rows.shape(at.shape_of(0))
    weight, values = wide(node._saved_weight.detach()), at.values.flatten(0, 1)
    unread = weight.new_empty(()).expand(len(values), *shape[1:])
    found = aten.convolution_backward(
        values, unread, weight, None, node._saved_stride, node._saved_padding, node._saved_dilation,
        node._saved_transposed, node._saved_output_padding, node._saved_groups, [True, False, False],
    )[0]  # fmt: skip
    yield 0, found.unflatten(0, at.values.shape[:2]), at.rows


def _softmax(at: Passing) -> Passed:
    dim = signed(at.node._saved_dim) % len(at.shape)
    at.whole([dim])
    chances = at.saved(at.node._saved_result)
    weighted = at.values * chances
    yield 0, weighted - chances * weighted.sum(dim + 1, keepdim=True), at.rows


def _attention(at: Passing) -> Passed:
    """Softmax of scaled products; its weights are computed again, for the chosen rows alone."""
    node = at.node
    at.whole([1, 2, 3])
    if getattr(node, "_saved_dropout_p", 0.0):
        raise CoupledError(node.name())
    query, key, value = (at.saved(part) for part in (node._saved_query, node._saved_key, node._saved_value))
    scale = query.shape[-1] ** -0.5 if node._saved_scale is None else node._saved_scale
    scores = query @ key.transpose(-1, -2) * scale
    mask = getattr(node, "_saved_attn_mask", getattr(node, "_saved_attn_bias", None))
    if mask is not None:
        scores = scores + at.saved(mask)
    if node._saved_is_causal:
        scores = scores.masked_fill(torch.ones_like(scores[0, 0]).tril().logical_not().bool(), -torch.inf)
    chances = scores.softmax(-1)
    outer = at.values @ value.transpose(-1, -2)
    inner = chances * (outer - (outer * chances).sum(-1, keepdim=True)) * scale
    yield 0, inner @ key, at.rows
    yield 1, inner.transpose(-1, -2) @ query, at.rows
    yield 2, chances.transpose(-1, -2) @ at.values, at.rows


def _average_pool(at: Passing) -> Passed:
    at.whole(range(1, len(at.shape)))
    node, shape = at.node, at.rows.shape(at.shape_of(0))
    values = at.values.flatten(0, 1)
    inputs = values.new_zeros(len(values), *shape[1:])
    if node.name() == "AdaptiveAvgPool2DBackward0":
        found = aten._adaptive_avg_pool2d_backward(values.contiguous(), inputs)
    else:
        found = aten.avg_pool2d_backward(
            values.contiguous(), inputs, node._saved_kernel_size, node._saved_stride, node._saved_padding,
            node._saved_ceil_mode, node._saved_count_include_pad, node._saved_divisor_override,
        )  # fmt: skip
    yield 0, found.unflatten(0, at.values.shape[:2]), at.rows


def _max_pool(at: Passing) -> Passed:
    at.whole(range(1, len(at.shape)))
    shape = at.rows.shape(at.shape_of(0))
    places = at.rows.of(at.node._saved_result1).flatten(2).expand(len(at.values), -1, -1, -1)
    found = at.values.new_zeros(len(at.values), *shape[:2], math.prod(shape[2:]))
    yield 0, found.scatter_add_(3, places, at.values.flatten(3)).unflatten(3, shape[2:]), at.rows


def _slice(at: Passing) -> Passed:
    dim = signed(at.node._saved_dim) % len(at.shape_of(0))
    at.whole([dim])
    shape = at.rows.shape(at.shape_of(0))
    found = at.values.new_zeros(len(at.values), *shape)
    start, stop = signed(at.node._saved_start), signed(at.node._saved_end)
    places = torch.arange(shape[dim], device=found.device)[start : stop : at.node._saved_step]
    yield 0, found.index_copy_(dim + 1, places, at.values), at.rows


def _select(at: Passing) -> Passed:
    dim = signed(at.node._saved_dim) % len(at.shape_of(0))
    rows = at.rows if at.rows.axis < dim else at.rows.at(at.rows.axis + 1)
    shape = rows.shape(at.shape_of(0))
    found = at.values.new_zeros(len(at.values), *shape)
    found.select(dim + 1, signed(at.node._saved_index)).copy_(at.values)
    yield 0, found, rows


def _join(at: Passing) -> Passed:
    """A concatenation."""
    dim = signed(at.node._saved_dim) % len(at.shape)
    at.whole([dim])
    sizes = [at.shape_of(place)[dim] for place in range(len(at.node.next_functions))]
    for place, values in enumerate(at.values.split(sizes, dim + 1)):
        yield place, values, at.rows


def _dropped(at: Passing) -> Tensor:
    return at.saved(at.node._saved_result1) / (1 - at.node._saved_p)


RULES: dict[str, Rule] = {
    **dict.fromkeys(("CloneBackward0", "ToCopyBackward0", "AliasBackward0", "ContiguousBackward0"), _through),
    **dict.fromkeys(
        ("ViewBackward0", "UnsafeViewBackward0", "ReshapeAliasBackward0", "UnsqueezeBackward0", "SqueezeBackward0",
         "SqueezeBackward1", "SqueezeBackward2"),
        _view,
    ),
    "PermuteBackward0": _permute, "TransposeBackward0": _transpose, "TBackward0": _transpose,
    "ExpandBackward0": _expand, "SliceBackward0": _slice, "SelectBackward0": _select, "CatBackward0": _join,
    "AddBackward0": _add, "SubBackward0": _add, "MulBackward0": _multiply, "DivBackward0": _divide,
    "AddBackward1": _through, "SubBackward1": _through, "MulBackward1": _multiply, "DivBackward1": _divide,
    "NegBackward0": _negate, "AddmmBackward0": _linear, "MmBackward0": _linear,
    "BmmBackward0": _batched_product, "BaddbmmBackward0": _batched_product,
    "MeanBackward1": _reduced, "SumBackward1": _reduced,
    "ReluBackward0": _by(lambda at: (at.saved(at.node._saved_result) > 0).to(at.values)),
    "TanhBackward0": _by(lambda at: 1 - at.saved(at.node._saved_result).square()),
    "SigmoidBackward0": _by(lambda at: at.saved(at.node._saved_result) * (1 - at.saved(at.node._saved_result))),
    "ExpBackward0": _by(lambda at: at.saved(at.node._saved_result)),
    "NativeDropoutBackward0": _by(_dropped),
    "GeluBackward0": _gelu,
    "SiluBackward0": _slope(aten.silu_backward),
    "LeakyReluBackward0": _by(
        lambda at: torch.where(at.saved(at.node._saved_self) > 0, 1.0, at.node._saved_negative_slope)
    ),
    "SoftmaxBackward0": _softmax, "SafeSoftmaxBackward0": _softmax,
    "NativeLayerNormBackward0": _layer_norm, "NativeGroupNormBackward0": _group_norm,
    "NativeBatchNormBackward0": _batch_norm, "ConvolutionBackward0": _convolution,
    "ScaledDotProductFlashAttentionForCpuBackward0": _attention,
    "ScaledDotProductEfficientAttentionBackward0": _attention,
    "ScaledDotProductFlashAttentionBackward0": _attention,
    "AvgPool2DBackward0": _average_pool, "AdaptiveAvgPool2DBackward0": _average_pool,
    "MaxPool2DWithIndicesBackward0": _max_pool,
}  # fmt: skip


def pass_back(node: Node, arrived: Mapping[int, tuple[Tensor, Rows]], needed: tuple[int, ...]) -> Passed:
    """The gradients at a node's inputs, from those at its outputs, by number.

    Raises:
        CoupledError: the operation mixes rows, or is not known.
    """
    if node.name() in {"SplitBackward0", "SplitWithSizesBackward0", "UnbindBackward0"}:
        return _parts(node, arrived)
    rule = RULES.get(node.name())
    if rule is None or set(arrived) != {0}:
        raise CoupledError(node.name())
    return rule(Passing(node, *arrived[0], needed))


def _parts(node: Node, arrived: Mapping[int, tuple[Tensor, Rows]]) -> Passed:
    """Through a split: the parts' gradients side by side, zero where a part was not used."""
    known, rows = next(iter(arrived.values()))
    shapes = [list(metadata.shape) for metadata in node._input_metadata]
    dim = signed(node._saved_dim) % (len(shapes[0]) + (node.name() == "UnbindBackward0"))
    lies = {(other.axis, other.outer, other.inner) for _, other in arrived.values()}
    if len(lies) > 1 or (node.name() != "UnbindBackward0" and dim == rows.axis):
        raise CoupledError(node.name())
    zeros = [known.new_zeros(len(known), *rows.shape(shape)) for shape in shapes]
    parts = [arrived[number][0] if number in arrived else zero for number, zero in enumerate(zeros)]
    if node.name() == "UnbindBackward0":
        yield 0, torch.stack(parts, dim + 1), rows.at(rows.axis + (dim <= rows.axis))
    else:
        yield 0, torch.cat(parts, dim + 1), rows
