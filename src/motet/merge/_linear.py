"""Merges that are a weighted sum of the models, tensor by tensor."""

from collections.abc import Sequence

import numpy as np

from motet._errors import RequestError
from motet.merge._dtypes import Array
from motet.merge._models import Models, Piece


def weighted(piece: Piece, base: float, experts: Sequence[float]) -> Array:
    """(n,) base·θ₀ + Σ experts_e·θ_e in float64, which makes the exact laws exact after rounding."""
    total = np.zeros(len(piece.base))
    if len(set(experts)) == 1:
        for expert in piece.experts:
            total += expert
        total *= experts[0]
    else:
        for coefficient, expert in zip(experts, piece.experts, strict=True):
            total += np.multiply(expert, coefficient, dtype=np.float64)
    if base:
        total += np.multiply(piece.base, base, dtype=np.float64)
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
