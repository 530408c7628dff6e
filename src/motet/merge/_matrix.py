"""What the methods on singular vectors share."""

import numpy as np

from motet.merge._dtypes import Array
from motet.merge._models import Piece


def delta_matrices(piece: Piece) -> Array | None:
    """(E, rows, columns) the experts' changes of a matrix, float64; None for any other tensor."""
    if len(piece.shape) != 2 or 0 in piece.shape:
        return None
    return piece.deltas().reshape(-1, *piece.shape)


def svd(matrix: Array) -> tuple[Array, Array, Array]:
    """The thin singular value decomposition U (m, r), σ (r,), Vᵀ (r, n)."""
    return np.linalg.svd(matrix, full_matrices=False)


def polar(matrix: Array) -> Array:
    """The nearest matrix with orthonormal columns or rows: its singular values set to one."""
    left, _, right = svd(matrix)
    return left @ right


def mean_change(piece: Piece, scale: float) -> Array:
    """(n,) θ₀ + scale · mean_e τ_e, what is done to tensors that are no matrices."""
    return piece.base + scale * piece.deltas().mean(axis=0)
