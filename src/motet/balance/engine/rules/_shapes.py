"""Operations that move numbers without changing them."""

from collections.abc import Mapping

import torch
from torch import Tensor

from motet.balance.engine._graph import Node, signed
from motet.balance.engine._rows import CoupledError, Rows
from motet.balance.engine.rules._passing import Passed, Passing, Rule, summed


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


def _expand(at: Passing) -> Passed:
    yield summed(at, 0, at.values)


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


def joined_parts(node: Node, arrived: Mapping[int, tuple[Tensor, Rows]]) -> Passed:
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


SHAPES: dict[str, Rule] = {
    **dict.fromkeys(("CloneBackward0", "ToCopyBackward0", "AliasBackward0", "ContiguousBackward0"), _through),
    **dict.fromkeys(
        ("ViewBackward0", "UnsafeViewBackward0", "ReshapeAliasBackward0", "UnsqueezeBackward0", "SqueezeBackward0",
         "SqueezeBackward1", "SqueezeBackward2"),
        _view,
    ),
    "PermuteBackward0": _permute, "TransposeBackward0": _transpose, "TBackward0": _transpose,
    "ExpandBackward0": _expand, "SliceBackward0": _slice, "SelectBackward0": _select, "CatBackward0": _join,
    "AddBackward1": _through, "SubBackward1": _through,
}  # fmt: skip
