"""Matrix products, convolutions and attention."""

import torch

from motet.balance.engine._graph import signed
from motet.balance.engine._layers import wide
from motet.balance.engine._rows import CoupledError
from motet.balance.engine.rules._passing import Passed, Passing, Rule, summed

aten = torch.ops.aten


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
            yield summed(at, place, at.values)


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


PRODUCTS: dict[str, Rule] = {
    "AddmmBackward0": _linear, "MmBackward0": _linear,
    "BmmBackward0": _batched_product, "BaddbmmBackward0": _batched_product,
    "ConvolutionBackward0": _convolution,
    "SoftmaxBackward0": _softmax, "SafeSoftmaxBackward0": _softmax,
    "ScaledDotProductFlashAttentionForCpuBackward0": _attention,
    "ScaledDotProductEfficientAttentionBackward0": _attention,
    "ScaledDotProductFlashAttentionBackward0": _attention,
}  # fmt: skip
