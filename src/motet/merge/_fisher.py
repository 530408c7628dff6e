"""Fisher-weighted averaging."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from motet.merge._checkpoint import Source
from motet.merge._claims import Golden
from motet.merge._dtypes import Array
from motet.merge._method import Method, Rule
from motet.merge._models import Models, Piece
from motet.merge._statistics import Statistics


@dataclass(frozen=True, kw_only=True)
class Fisher(Method):
    """Averages the experts entry by entry, each with as much weight as its task needs that entry.

    Choose it when each expert comes with a diagonal Fisher information, from some hundred labelled or unlabelled rows.

        θ = Σ_e c_e F_e θ_e / Σ_e c_e F_e,   c_e ∝ 1 / ‖F_e‖

    Args:
        statistics: for each expert a file or a dict with the Fisher information of each tensor under the tensor's
            name. A tensor that none of them has is averaged plainly.
        floor: added to every F, so that entries that no task needs are averaged.

    Raises:
        RequestError: statistics are missing or do not fit.

    Cost: two passes over checkpoints and statistics.

    Source: Matena and Raffel, Merging Models with Fisher-Weighted Averaging, NeurIPS 2022; floor and the normalisation
        c_e as in MergeLM. F is what is given: it should be a mean of squared gradients by example, where those codes
        square the sum over a batch.
    """

    name: ClassVar[str] = "fisher"
    needs: ClassVar[str] = "a file of diagonal Fisher information for each expert (--statistics)"
    claims: ClassVar[frozenset[str]] = frozenset({"equal experts", "the base stays", "order is free", "homogeneous"})
    golden: ClassVar[tuple[Golden, ...]] = (
        Golden(
            (0.0, 0.0),
            ((1.0, 1.0), (3.0, 3.0)),
            (1.0, 3.0),
            "by hand: each entry is needed by one expert alone",
            tolerance=1e-5,
            parameters={"statistics": ({"weight": np.array([1.0, 0.0])}, {"weight": np.array([0.0, 1.0])})},
        ),
    )

    statistics: tuple[Source, ...] = ()
    floor: float = 1e-6

    def measured(self) -> Sequence[Source]:
        """The statistics."""
        return self.statistics

    def rule(self, models: Models) -> Rule:
        """The norms of the statistics, then the sums."""
        found = Statistics(self.name, self.statistics, models)
        known = [name for name in models.merged if found.has(name)]
        for name in known:
            found.check_shape(name, models.base.entries[name].shape)
        squares = models.each(
            lambda name: np.array([_square(found, models, e, name) for e in range(len(models.experts))]), known
        )
        shares = 1 / (np.sqrt(sum(squares.values(), np.zeros(len(models.experts)))) + self.floor)

        def merged(piece: Piece) -> Array:
            top, bottom = np.zeros((2, len(piece.base)))
            for number, expert in enumerate(piece.experts):
                weight = np.full(len(expert), 1.0)
                if found.has(piece.name):
                    weight = shares[number] * (found.read(number, piece.name, piece.start, len(expert)) + self.floor)
                top += weight * expert
                bottom += weight
            return top / bottom

        return merged


def _square(found: Statistics, models: Models, number: int, name: str) -> float:
    total = 0.0
    for piece in models.pieces(name):
        information = found.read(number, name, piece.start, len(piece.base))
        if len(information) and information.min() < 0:
            found.refuse(number, name, "numbers below zero, which a mean of squared gradients never is")
        total += float(np.square(information, dtype=np.float64).sum())
    return total
