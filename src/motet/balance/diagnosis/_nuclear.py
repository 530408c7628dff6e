"""Singular values of gradients: their sum, the largest, and how much of the gradient they hold."""

from dataclasses import dataclass

import torch
from torch import Tensor

EXACT = 512  # matrices up to this smaller side are taken whole
LEADING = 128  # of larger ones so many singular values are taken


@dataclass(frozen=True)
class Spectrum:
    """What the singular values of one gradient say.

    Args:
        nuclear: their sum.
        top: the largest.
        held: share of the squared norm that the counted values hold: 1 where all were counted.
    """

    nuclear: float
    top: float
    held: float = 1.0


def spectrum(matrix: Tensor) -> Spectrum:
    """The spectrum of a matrix (n, m); NaN throughout where an entry is not finite.

    Exact up to a smaller side of `EXACT`, from the eigenvalues of the smaller side's Gramian in float64: squaring
    costs half the digits, which float32 does not have. Above it, from the `LEADING` leading singular values found
    by a randomised range finder with one power iteration; the sum is then a lower bound, and `held` says how good.

    Cost: exact, n²·m + n³ for n ≤ m; beyond, 8·n·m·LEADING.

    Source: Halko, Martinsson and Tropp, Finding Structure with Randomness, SIAM Review 2011, algorithm 4.4, with one
        power iteration. The random matrix comes from a fixed seed, so that the same gradient gives the same numbers.
    """
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.mT
    largest = float(wide.abs().max())
    if not largest < float("inf"):
        return Spectrum(*[float("nan")] * 3)
    if largest == 0.0:
        return Spectrum(0.0, 0.0)
    scaled = wide / largest  # squares of tiny or huge gradients would leave the range of numbers
    norm = float(torch.linalg.vector_norm(scaled))
    scaled = scaled / norm
    if len(wide) > EXACT:
        scaled = _range(scaled).mH @ scaled
    values = _singular_values(scaled)
    held = min(1.0, float((values**2).sum())) if len(wide) > EXACT else 1.0
    norm *= largest
    return Spectrum(norm * float(values.sum()), norm * float(values.max()), held)


def _singular_values(wide: Tensor) -> Tensor:
    wide = wide.to(torch.complex128 if wide.is_complex() else torch.float64)
    squares = torch.linalg.eigvalsh(wide @ wide.mH).clamp(min=0.0)
    noise = len(wide) * torch.finfo(torch.float64).eps * squares.max()
    return torch.where(squares > noise, squares, torch.zeros_like(squares)).sqrt()


def _range(wide: Tensor) -> Tensor:
    """An orthonormal basis (n, LEADING) of where most of a matrix (n, m) lies."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(wide.shape[1], LEADING, generator=generator, dtype=torch.float32).to(wide)
    first = torch.linalg.qr(wide @ start).Q
    back = torch.linalg.qr(wide.mH @ first).Q
    return torch.linalg.qr(wide @ back).Q
