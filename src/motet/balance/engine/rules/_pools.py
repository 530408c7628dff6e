"""Pooling over places."""

import math

import torch

from motet.balance.engine.rules._passing import Passed, Passing, Rule

aten = torch.ops.aten


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


POOLS: dict[str, Rule] = {
    "AvgPool2DBackward0": _average_pool, "AdaptiveAvgPool2DBackward0": _average_pool,
    "MaxPool2DWithIndicesBackward0": _max_pool,
}  # fmt: skip
