"""Task singular vectors (TSV-M)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from motet.merge._claims import Golden
from motet.merge._dtypes import Array
from motet.merge._matrix import delta_matrices, mean_change, polar, svd
from motet.merge._method import Method, Rule
from motet.merge._models import Models, Piece


@dataclass(frozen=True, kw_only=True)
class TSVM(Method):
    """Keeps the strongest directions of each expert's change, and turns them so that they do not overlap.

    Choose it for experts of different tasks with full fine-tuning; each gets 1/E of every matrix's directions.

        τ_e ≈ U_e diag(σ_e) V_eᵀ with its first r/E directions;   U = polar[U_1 … U_E], V alike
        θ = θ₀ + α U diag(σ_1 … σ_E) Vᵀ;   the mean of changes for tensors that are no matrices

    Args:
        scale: α.

    Cost: E + 2 singular value decompositions of each matrix, one tensor at a time.

    Source: Gargiulo et al., Task Singular Vectors: Reducing Task Interference in Model Merging, CVPR 2025, and its
        released code. In float64. With more experts than a matrix has rows or columns, each keeps one direction and
        they overlap.
    """

    name: ClassVar[str] = "tsv_m"
    whole: ClassVar[bool] = True
    claims: ClassVar[frozenset[str]] = frozenset({"order is free", "the base stays", "scales", "homogeneous"})
    golden: ClassVar[tuple[Golden, ...]] = (
        Golden(
            ((1.0, 0.0), (0.0, 0.0)),
            (((4.0, 0.0), (0.0, 1.0)), ((1.0, 0.0), (0.0, 5.0))),
            ((4.0, 0.0), (0.0, 5.0)),
            "by hand: of diag(3, 1) and diag(0, 5) the first direction each, already at right angles",
        ),
    )

    scale: float = 1.0

    def rule(self, models: Models) -> Rule:  # noqa: ARG002
        """The merge of one tensor."""
        return self._merge

    def _merge(self, piece: Piece) -> Array:
        deltas_EMN = delta_matrices(piece)
        if deltas_EMN is None:
            return mean_change(piece, self.scale)
        rank = max(min(piece.shape) // len(deltas_EMN), 1)
        found = [svd(delta) for delta in deltas_EMN]
        left = polar(np.concatenate([left[:, :rank] for left, _, _ in found], axis=1))
        values = np.concatenate([values[:rank] for _, values, _ in found])
        right = polar(np.concatenate([right[:rank] for _, _, right in found]))
        return piece.base + (self.scale * (left * values) @ right).reshape(-1)
