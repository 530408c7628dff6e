"""RegMean: the linear maps that answer each expert's inputs as that expert does."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from motet.merge._checkpoint import Source
from motet.merge._claims import Golden
from motet.merge._dtypes import Array
from motet.merge._method import Method, Rule, check_range
from motet.merge._models import Models, Piece
from motet.merge._statistics import Statistics


@dataclass(frozen=True, kw_only=True)
class RegMean(Method):
    """Gives each linear layer the weights that come nearest to every expert's outputs on that expert's own inputs.

    Choose it when each expert comes with the inner products of its layers' inputs, from some hundred unlabelled rows:
    among the methods without training it is near the top.

        Wᵀ = (Σ_e G_e)⁻¹ Σ_e G_e W_eᵀ,   G_e = XᵀX / n, its off-diagonal times `off_diagonal`

    Args:
        statistics: for each expert a file or a dict with G (in, in) under the weight's name. Other tensors are
            averaged.
        off_diagonal: 0 to 1; below 1 it keeps the solution stable.

    Raises:
        RequestError: statistics are missing or do not fit.

    Cost: one solve of (in, in) for each linear layer, one tensor at a time.

    Source: Jin et al., Dataless Knowledge Fusion by Merging Weights of Language Models, ICLR 2023. FusionBench takes
        0.95 for CLIP and 0.6 for GPT-2 as off_diagonal; the default lies near the former. Departure: a least-squares
        solution in float64 in the place of the inverse, which also answers where the sum is singular.
    """

    name: ClassVar[str] = "regmean"
    whole: ClassVar[bool] = True
    needs: ClassVar[str] = "a file of input inner products for each expert (--statistics)"
    claims: ClassVar[frozenset[str]] = frozenset({"order is free", "homogeneous"})
    golden: ClassVar[tuple[Golden, ...]] = (
        Golden(
            ((0.0, 0.0),),
            (((1.0, 5.0),), ((7.0, 2.0),)),
            ((1.0, 2.0),),
            "by hand: each expert's inputs use one column alone",
            parameters={"statistics": ({"weight": np.diag([1.0, 0.0])}, {"weight": np.diag([0.0, 1.0])})},
        ),
    )

    statistics: tuple[Source, ...] = ()
    off_diagonal: float = 0.9

    def measured(self) -> Sequence[Source]:
        """The statistics."""
        return self.statistics

    def rule(self, models: Models) -> Rule:
        """The merge of one tensor."""
        check_range(self.name, "off_diagonal", self.off_diagonal, 0, 1)
        found = Statistics(self.name, self.statistics, models)
        for name in models.merged:
            shape = models.base.entries[name].shape
            if found.has(name):
                found.check_shape(name, (shape[-1], shape[-1]) if len(shape) == 2 else shape)
        return lambda piece: self._merge(piece, found)

    def _merge(self, piece: Piece, found: Statistics) -> Array:
        if not found.has(piece.name) or len(piece.shape) != 2:
            return np.stack(piece.experts).mean(axis=0, dtype=np.float64)
        width = piece.shape[1]
        left, right = np.zeros((width, width)), np.zeros((width, piece.shape[0]))
        damping = np.full((width, width), self.off_diagonal) + np.eye(width) * (1 - self.off_diagonal)
        for number, expert in enumerate(piece.experts):
            gram = damping * found.read(number, piece.name, 0, width * width).reshape(width, width)
            left += gram
            right += gram @ expert.reshape(piece.shape).T.astype(np.float64)
        return _solve(left, right).T.reshape(-1)


def _solve(left: Array, right: Array) -> Array:
    try:
        factor = np.linalg.cholesky(left)
    except np.linalg.LinAlgError:
        return np.linalg.lstsq(left, right)[0]
    return np.linalg.solve(factor.T, np.linalg.solve(factor, right))
