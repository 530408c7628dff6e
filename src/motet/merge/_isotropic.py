"""Isotropic merging: a merged change whose singular values are all equal."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from motet.merge._claims import Golden
from motet.merge._dtypes import Array
from motet.merge._matrix import delta_matrices, mean_change, polar, svd
from motet.merge._method import Method, Rule, check_range
from motet.merge._models import Models, Piece


@dataclass(frozen=True, kw_only=True)
class IsoC(Method):
    """Adds the experts' changes up and makes all directions of the sum equally strong, matrix by matrix.

    Choose it over task arithmetic for many experts: the directions that only one of them needs are not drowned.

        Σ_e τ_e = U diag(σ) Vᵀ,   θ = θ₀ + α mean(σ) U Vᵀ;   the mean of changes for tensors that are no matrices

    Args:
        scale: α; about 1.5 suits eight experts.

    Cost: a singular value decomposition of each matrix, one tensor at a time.

    Source: Marczak et al., No Task Left Behind: Isotropic Model Merging with Common and Task-Specific Subspaces, ICML
        2025, and its released code. In float64.
    """

    name: ClassVar[str] = "iso_c"
    whole: ClassVar[bool] = True
    claims: ClassVar[frozenset[str]] = frozenset({"order is free", "the base stays", "scales", "homogeneous"})
    golden: ClassVar[tuple[Golden, ...]] = (
        Golden(
            ((1.0, 0.0), (0.0, 0.0)),
            (((4.0, 0.0), (0.0, 0.0)), ((1.0, 0.0), (0.0, 1.0))),
            ((4.0, 0.0), (0.0, 3.0)),
            "by hand: the sum of changes is diag(3, 1), the mean of its singular values 2, times 1.5",
        ),
        Golden((0.0, 0.0), ((2.0, 0.0), (0.0, 4.0)), (1.5, 3.0), "by hand: a vector, 1.5 times the mean"),
    )

    scale: float = 1.5

    def rule(self, models: Models) -> Rule:  # noqa: ARG002
        """The merge of one tensor."""
        return self._merge

    def _merge(self, piece: Piece) -> Array:
        deltas_EMN = delta_matrices(piece)
        if deltas_EMN is None:
            return mean_change(piece, self.scale)
        left, values, right = svd(deltas_EMN.sum(axis=0))
        return piece.base + (self.scale * values.mean() * (left @ right)).reshape(-1)


@dataclass(frozen=True, kw_only=True)
class IsoCTS(Method):
    """Isotropic merging in which the sum's weakest directions make way for each expert's own strongest ones.

    Choose it over `iso_c` where there are many experts, more than about eight.

        Uc, Vc: the sum's first c directions;   U_e, V_e: the first (r − c)/E of (I − Uc Ucᵀ) τ_e;
        U = polar[U_1 … U_E, Uc], V alike;   θ = θ₀ + α mean(σ of all) U Vᵀ

    Args:
        scale: α; about 1.5 suits eight experts.
        common: c / r, share of the directions that the sum keeps, 0 to 1.

    Cost: E + 3 singular value decompositions of each matrix, one tensor at a time.

    Source: Marczak et al., as `iso_c`. In float64; as the released code, what is left of the directions is dealt out
        evenly.
    """

    name: ClassVar[str] = "iso_cts"
    whole: ClassVar[bool] = True
    claims: ClassVar[frozenset[str]] = frozenset({"order is free", "the base stays", "scales", "homogeneous"})
    golden: ClassVar[tuple[Golden, ...]] = (
        Golden(
            ((0.0, 0.0), (0.0, 0.0)),
            (((3.0, 0.0), (0.0, 0.0)), ((0.0, 0.0), (0.0, 1.0))),
            ((3.0, 0.0), (0.0, 3.0)),
            "by hand: diag(3, 1) has no weaker direction to give away: 1.5 times 2, the mean",
            parameters={"common": 1.0},
        ),
    )

    scale: float = 1.5
    common: float = 0.8

    def rule(self, models: Models) -> Rule:  # noqa: ARG002
        """The merge of one tensor."""
        check_range(self.name, "common", self.common, 0, 1)
        return self._merge

    def _merge(self, piece: Piece) -> Array:
        deltas_EMN = delta_matrices(piece)
        if deltas_EMN is None:
            return mean_change(piece, self.scale)
        if not deltas_EMN.any():
            return piece.base
        count, smallest = len(deltas_EMN), min(piece.shape)
        own = min(round((smallest - int(smallest * self.common)) / count), smallest // count)
        common = smallest - own * count
        left, values, right = svd(deltas_EMN.sum(axis=0))
        left, values, right = left[:, :common], values[:common], right[:common]
        found = [svd(delta - left @ (left.T @ delta)) for delta in deltas_EMN]
        spectrum = np.concatenate([*(part[1][:own] for part in found), values])
        left = polar(np.concatenate([*(part[0][:, :own] for part in found), left], axis=1))
        right = polar(np.concatenate([*(part[2][:own] for part in found), right]))
        return piece.base + (self.scale * spectrum.mean() * (left @ right)).reshape(-1)
