"""The average of checkpoints."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from motet.merge._claims import Golden
from motet.merge._linear import shares, weighted
from motet.merge._method import Method, Rule
from motet.merge._models import Models


@dataclass(frozen=True, kw_only=True)
class Average(Method):
    """Averages the experts' weights; the base only says which tensors there are.

    Choose it for checkpoints of one task or of one training, and as the floor that any other method must beat.

        θ = Σ_e w_e θ_e / Σ_e w_e

    Args:
        weights: one for each expert; equal if empty.

    Cost: one pass.

    Source: Wortsman et al., Model soups, ICML 2022 (the uniform soup).
    """

    name: ClassVar[str] = "average"
    shows_not_finite: ClassVar[bool] = True
    claims: ClassVar[frozenset[str]] = frozenset({
        "one expert at coefficient one", "order is free", "equal experts", "the base stays", "homogeneous",
    })  # fmt: skip
    golden: ClassVar[tuple[Golden, ...]] = (
        Golden((0.0, 0.0), ((1.0, 2.0), (3.0, -2.0)), (2.0, 0.0), "by hand: the means"),
    )

    weights: tuple[float, ...] = ()

    def rule(self, models: Models) -> Rule:
        """The weighted mean."""
        return partial(weighted, base=0.0, experts=shares(self.name, self.weights, len(models.experts)))
