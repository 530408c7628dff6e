"""DOGE: adaptive projective gradient descent on a change that all experts share."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from motet.merge._claims import Golden
from motet.merge._dtypes import Array
from motet.merge._matrix import delta_matrices, svd
from motet.merge._method import Method, Rule, check_range
from motet.merge._models import Models, Piece
from motet.merge._threshold import least_kept, magnitudes
from motet.merge._ties import kept_as_authors


@dataclass(frozen=True, kw_only=True)
class DOGE(Method):
    """Task arithmetic with a learned correction that all experts share, found from the weights alone.

    Choose it where there is no data at all and time for some hundred small steps on each matrix.

        λ_e = scale / ‖τ_e‖,  S = Σ λ_e τ_e,  c = Σ λ_e;  Δ minimises Σ_e ‖rowsum(τ_e ⊙ (τ_e − S − c Δ))‖²
        by Adam on the part of the gradient outside the first r/subspace left directions of the experts' first r/E ones;
        θ = θ₀ + Σ_e λ_e (τ_e + Δ) ⊙ m_e,   m_e the largest share `density` of |τ_e| over all matrices

    Args:
        scale: the length of each expert's part, by matrix.
        density: share of each expert's entries that is kept, 0 to 1.
        subspace: r / subspace directions are left as they are, at least 1.
        steps: of Adam.
        rate: of Adam.

    Cost: E + 1 singular value decompositions and `steps` times 2E multiplications of each matrix, one tensor at a time.

    Source: Wei et al., Modeling Multi-Task Model Merging as Adaptive Projective Gradient Descent, ICML 2025, as
        contributed to FusionBench, whose loss it is (the documentation there writes another). Departures: every matrix
        takes part, where that code takes the encoder's weights; tensors that are no matrices stay the base's, as
        there; an expert that did not change a matrix has no part in it. In float64.
    """

    name: ClassVar[str] = "doge"
    whole: ClassVar[bool] = True
    claims: ClassVar[frozenset[str]] = frozenset({"order is free", "the base stays"})
    golden: ClassVar[tuple[Golden, ...]] = (
        Golden(
            ((0.0, 0.0), (0.0, 0.0)),
            (((3.0, 0.0), (4.0, 0.0)),),
            ((0.042, 0.0), (0.056, 0.0)),
            "by hand: before the first step, 0.07 / 5 of the change",
            parameters={"steps": 0, "density": 1.0},
        ),
    )

    scale: float = 0.07
    density: float = 0.3
    subspace: float = 6.0
    steps: int = 400
    rate: float = 1e-4

    def rule(self, models: Models) -> Rule:
        """The thresholds of the masks, then the merge of one tensor."""
        check_range(self.name, "density", self.density, 0, 1)
        check_range(self.name, "subspace", self.subspace, 1, float("inf"))
        matrices = [name for name in models.merged if len(models.base.entries[name].shape) == 2 and models.size(name)]
        if not matrices:
            return lambda piece: piece.base
        least_E = least_kept(models, matrices, kept_as_authors(self.density), threads=True)
        return lambda piece: self._merge(piece, least_E)

    def _merge(self, piece: Piece, least_E: Array) -> Array:
        deltas_EMN = delta_matrices(piece)
        if deltas_EMN is None:
            return piece.base
        lengths_E = np.sqrt(np.square(deltas_EMN).sum(axis=(1, 2)))
        scales_E = np.divide(self.scale, lengths_E, out=np.zeros_like(lengths_E), where=lengths_E > 0)
        if not scales_E.any():
            return piece.base
        shared_MN = self._shared(deltas_EMN, scales_E)
        total = np.zeros(deltas_EMN.shape[1:])
        for delta_MN, scale, least in zip(deltas_EMN, scales_E, least_E, strict=True):
            kept = magnitudes(delta_MN.astype(np.float32)) >= least
            total += scale * (delta_MN + shared_MN) * kept
        return piece.base + total.reshape(-1)

    def _shared(self, deltas_EMN: Array, scales_E: Array) -> Array:
        directions = _common_directions(deltas_EMN, self.subspace)
        constant_EM = np.einsum("emn,emn->em", deltas_EMN, deltas_EMN - np.tensordot(scales_E, deltas_EMN, 1))
        total = scales_E.sum()
        shared, first, second = np.zeros((3, *deltas_EMN.shape[1:]))
        for step in range(1, self.steps + 1):
            rows_EM = constant_EM - total * np.einsum("emn,mn->em", deltas_EMN, shared)
            gradient = -2 * total * np.einsum("em,emn->mn", rows_EM, deltas_EMN)
            gradient -= directions @ (directions.T @ gradient)
            first += 0.1 * (gradient - first)
            second += 0.001 * (gradient**2 - second)
            shared -= self.rate * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
        return shared


def _common_directions(deltas_EMN: Array, subspace: float) -> Array:
    """(M, k) the first left singular vectors of all experts' first ones."""
    smallest = min(deltas_EMN.shape[1:])
    each = max(smallest // len(deltas_EMN), 1)
    firsts = np.concatenate([svd(delta)[0][:, :each] for delta in deltas_EMN], axis=1)
    return svd(firsts)[0][:, : int(smallest / subspace)]
