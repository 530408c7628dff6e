"""Operations on numbers one by one, and their sums."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from motet.balance.engine._graph import signed
from motet.balance.engine._rows import CoupledError
from motet.balance.engine.rules._passing import Passed, Passing, Rule, summed

aten = torch.ops.aten


def _add(at: Passing) -> Passed:
    sign = -1 if at.node.name().startswith("Sub") else 1
    for place in at.needed:
        factor = sign * at.node._saved_alpha if place == 1 else 1
        yield summed(at, place, at.values if factor == 1 else at.values * factor)


def _multiply(at: Passing) -> Passed:
    for place in at.needed:
        other = at.node._saved_other if place == 0 else at.node._saved_self
        yield summed(at, place, at.values * (at.saved(other) if isinstance(other, Tensor) else other))


def _divide(at: Passing) -> Passed:
    if at.needed != (0,):
        raise CoupledError(at.node.name())
    other = at.node._saved_other
    yield summed(at, 0, at.values / (at.saved(other) if isinstance(other, Tensor) else other))


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


def _dropped(at: Passing) -> Tensor:
    return at.saved(at.node._saved_result1) / (1 - at.node._saved_p)


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


NUMBERS: dict[str, Rule] = {
    "AddBackward0": _add, "SubBackward0": _add, "NegBackward0": _negate,
    "MulBackward0": _multiply, "MulBackward1": _multiply, "DivBackward0": _divide, "DivBackward1": _divide,
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
}  # fmt: skip
