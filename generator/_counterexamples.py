"""Small cases in which a method breaks a law that it does not claim."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from motet.balance import Balancer

Rows = tuple[tuple[float, ...], ...]

CASES: tuple[Rows, ...] = (
    ((1.0, 0.0), (0.0, 1.0)),
    ((1.0, 0.0), (-1.0, 1.0)),
    ((1.0, 0.0), (-3.0, 1.0)),
    ((1.0, 0.0), (-1.0, 0.0)),
    ((1.0, 0.0), (0.0, 3.0)),
    ((1.0, 0.0, 0.0), (-1.0, 1.0, 0.0), (-2.0, -1.0, 1.0)),
    ((1.0, 0.0), (-1.0, 1.0), (-1.0, -2.0)),
)
STATIONARY = (CASES[3], CASES[6], ((1.0, 0.0), (-3.0, 0.0)), ((1.0, 1.0), (0.0, 0.0)))
SAME: Rows = ((1.0, 2.0), (1.0, 2.0))
FACTOR = 4.0
_NOTHING = 1e-5  # a direction this short is zero but for rounding


def counterexample(kind: type[Balancer], law: str) -> str:
    """The first of a few small cases in which the law does not hold at the first step; empty where it holds in all."""
    return _LAWS[law](kind)


def direction(kind: type[Balancer], rows: Rows, losses: Sequence[float] | None = None) -> Tensor:
    """The first step's direction (P,) for these gradients."""
    shared = torch.zeros(len(rows[0]), dtype=torch.float64, requires_grad=True)
    z = (shared * 1.0).reshape(-1, 1)
    method = kind()
    at = z.flatten() if method.needs_features else shared
    values = losses or [1.0] * len(rows)
    named = {
        f"t{number}": (torch.tensor(row, dtype=torch.float64) * at).sum() + value
        for number, (row, value) in enumerate(zip(rows, values, strict=True))
    }
    if method.needs_features:
        method.backward(named, features=z)
    else:
        method.backward(named, shared=[shared])
    return torch.zeros_like(shared) if shared.grad is None else shared.grad


def vector(numbers: Sequence[float]) -> str:
    """As the pages show gradients and directions."""
    return f"({', '.join(format(number + 0.0 if abs(number) > 1e-9 else 0.0, '.3g') for number in numbers)})"


def _shown(rows: Rows, found: Tensor) -> str:
    return f"{', '.join(map(vector, rows))} give {vector(found.tolist())}"


def _unit(found: Tensor) -> Tensor:
    length = found.norm()
    return found / length if float(length) > _NOTHING else torch.zeros_like(found)


def _differ(first: Tensor, second: Tensor) -> bool:
    return float((first - second).abs().max()) > 1e-3 * float(first.abs().max() + second.abs().max())


def _scaled(kind: type[Balancer], *, each: bool) -> str:
    for rows in CASES:
        factors = [FACTOR] * len(rows) if each else [FACTOR, *[1.0] * (len(rows) - 1)]
        scaled = tuple(tuple(factor * value for value in row) for factor, row in zip(factors, rows, strict=True))
        before, after = direction(kind, rows), direction(kind, scaled, factors)
        if _differ(before * (FACTOR if each else 1.0), after):
            what = "all losses" if each else "the first loss"
            return f"{_shown(rows, before)}; with {what} times {FACTOR:g}, {vector(after.tolist())}"
    return ""


def _mean(kind: type[Balancer]) -> str:
    found, row = direction(kind, SAME), torch.tensor(SAME[0], dtype=torch.float64)
    return "" if not (_differ(found, row) and _differ(found, 2 * row)) else _shown(SAME, found)


def _ascends(kind: type[Balancer]) -> str:
    for rows in CASES:
        found = direction(kind, rows)
        if float((torch.tensor(rows, dtype=torch.float64) @ _unit(found)).min()) < -1e-3:
            return _shown(rows, found)
    return ""


def _stationary(kind: type[Balancer]) -> str:
    for rows in (CASES[0], *STATIONARY):
        found = direction(kind, rows)
        if (float(found.norm()) < _NOTHING) != (rows in STATIONARY):
            return _shown(rows, found)
    return ""


def _alone(kind: type[Balancer]) -> str:
    rows: Rows = ((2.0, 0.0),)
    found = direction(kind, rows)
    return _shown(rows, found).replace(" give ", " gives ") if _differ(found, torch.tensor(rows[0]).double()) else ""


def _duplicate(kind: type[Balancer]) -> str:
    for rows in CASES:
        once, twice = direction(kind, rows), direction(kind, (rows[0], *rows))
        if _differ(_unit(once), _unit(twice)):
            return f"{_shown(rows, once)}; with the first task twice, {vector(twice.tolist())}"
    return ""


def _zero(kind: type[Balancer]) -> str:
    rows: Rows = ((1.0, 0.0), (0.0, 0.0))
    found = direction(kind, rows)
    return _shown(rows, found) if float(found[0]) <= 1e-9 else ""


_LAWS: dict[str, Callable[[type[Balancer]], str]] = {
    "scale equivariant": lambda kind: _scaled(kind, each=True),
    "scale invariant": lambda kind: _scaled(kind, each=False),
    "mean when agreeing": _mean,
    "never ascends": _ascends,
    "stationary is zero": _stationary,
    "one task is plain": _alone,
    "duplicate is harmless": _duplicate,
    "zero is harmless": _zero,
}
