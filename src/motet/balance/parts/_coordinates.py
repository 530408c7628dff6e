"""Gradients by coordinate, for methods that keep state along the shared parameters."""

import torch
from torch import Tensor

from motet.balance.engine._view import View


def gradient_rows(view: View) -> Tensor:
    """The tasks' gradients, (T, P), float32 at least: sums of squares and running means need its digits."""
    rows = view.jacobian
    return rows.float() if rows.dtype in {torch.bfloat16, torch.float16} else rows


def norms(rows: Tensor) -> Tensor:
    """Lengths of the rows, (T,) float64: squares of float32 would overflow from 1e19 on."""
    return torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64)


def inner_products(rows: Tensor, others: Tensor) -> Tensor:
    """Inner products (T, T') of rows, summed in float64 piece by piece, so that no float64 copy of them is made."""
    total = rows.new_zeros(len(rows), len(others), dtype=torch.float64)
    for left, right in zip(rows.split(_PIECE, dim=1), others.split(_PIECE, dim=1), strict=True):
        total += left.double() @ right.double().T
    return total


def sorted_gramian(rows: Tensor, order: list[int]) -> Tensor:
    """The Gramian (T, T) of rows taken in an order, the same to the last bit in whatever order they lie."""
    total = rows.new_zeros(len(rows), len(rows), dtype=torch.float64)
    for piece in rows.split(_PIECE, dim=1):
        wide = piece[order].double()
        total += wide @ wide.T
    return total


def inverse(values: Tensor) -> Tensor:
    """One over each number; zero for zero, so that a task without a gradient gets no infinite weight."""
    return torch.where(values > 0, 1.0 / values.clamp(min=torch.finfo(values.dtype).tiny), torch.zeros_like(values))


_PIECE = 1 << 16
