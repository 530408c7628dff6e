"""SPHINX's mixing of weights that were tuned on different domains."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from motet.merge._claims import Golden
from motet.merge._linear import weighted
from motet.merge._method import Method, Rule, check_range
from motet.merge._models import Models


@dataclass(frozen=True, kw_only=True)
class Sphinx(Method):
    """Mixes two models that saw different domains, such as real and synthetic pictures.

    Choose it for two experts of the same task on two domains; `average` does the same for more.

        θ = β θ₁ + (1 − β) θ₂

    Args:
        share: β, the first expert's part, from 0 to 1.

    Cost: one pass.

    Source: Lin et al., SPHINX: The Joint Mixing of Weights, Tasks, and Visual Embeddings, 2023, its weight mixing. The
        paper's β was not available to us; equal parts are the default here.
    """

    name: ClassVar[str] = "sphinx"
    num_experts: ClassVar[tuple[int, int | None]] = (2, 2)
    claims: ClassVar[frozenset[str]] = frozenset({"the base stays", "equal experts", "homogeneous"})
    golden: ClassVar[tuple[Golden, ...]] = (
        Golden((9.0, 9.0), ((1.0, 2.0), (3.0, -2.0)), (2.0, 0.0), "by hand: half of each"),
    )

    share: float = 0.5

    def rule(self, models: Models) -> Rule:
        """The mixture."""
        check_range(self.name, "share", self.share, 0, 1)
        self.check(len(models.experts))
        return partial(weighted, base=0.0, experts=[self.share, 1 - self.share])
