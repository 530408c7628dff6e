"""Merges that are a weighted sum of the models, tensor by tensor."""

import threading
from collections.abc import Sequence

import numpy as np

from motet._errors import RequestError
from motet.merge._dtypes import Array
from motet.merge._models import Models, Piece


class _Workspace(threading.local):
    """Room for numbers that are done with before the next piece: one array a thread, of the longest piece so far.

    New arrays in its place would be given back to the system, and mapped in anew, at every piece.
    """

    def __init__(self) -> None:
        self._numbers = np.empty(0)

    def take(self, length: int) -> Array:
        """(length,) float64, with anything in it."""
        if len(self._numbers) < length:
            self._numbers = np.empty(length)
        return self._numbers[:length]


_WORKSPACE = _Workspace()


def weighted(piece: Piece, base: float, experts: Sequence[float]) -> Array:
    """(n,) base·θ₀ + Σ experts_e·θ_e in float64, which makes the exact laws exact after rounding."""
    first, *others = piece.experts
    total = first.astype(np.float64)
    # Widening into one array and adding that takes three quarters of the time of a sum that widens as it goes.
    wide = _WORKSPACE.take(len(total))
    if len(set(experts)) == 1:
        for expert in others:
            np.copyto(wide, expert)
            total += wide
        total *= experts[0]
    else:
        total *= experts[0]
        for coefficient, expert in zip(experts[1:], others, strict=True):
            np.copyto(wide, expert)
            wide *= coefficient
            total += wide
    if base:
        np.copyto(wide, piece.base)
        wide *= base
        total += wide
    return total


def moved(piece: Piece, coefficients: Sequence[float]) -> Array:
    """(n,) θ₀ + Σ coefficients_e·(θ_e − θ₀)."""
    return weighted(piece, 1.0 - float(sum(coefficients)), coefficients)


def inner_products(models: Models, name: str) -> Array:
    """(1 + E, 1 + E) inner products of the base and of the experts' changes in one tensor."""
    found = np.zeros((1 + len(models.experts),) * 2)
    for piece in models.pieces(name):
        rows = np.concatenate([piece.base[None].astype(np.float64), piece.deltas()])
        found += rows @ rows.T
    return found


def shares(method: str, weights: Sequence[float], num_experts: int) -> list[float]:
    """One weight for each expert, adding up to one; equal where none were given.

    Raises:
        RequestError: their number is wrong, or they cannot be made to add up to one.
    """
    if not weights:
        return [1.0 / num_experts] * num_experts
    if len(weights) != num_experts or not sum(weights) > 0:
        message = (
            f"{method} got weights {tuple(weights)} for {num_experts} experts; one weight an expert with a sum above "
            "zero was expected. Pass one for each, in the experts' order."
        )
        raise RequestError(message)
    return [weight / sum(weights) for weight in weights]
