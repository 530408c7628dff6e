"""Task arithmetic."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from motet.merge._claims import Golden
from motet.merge._linear import moved
from motet.merge._method import Method, Rule
from motet.merge._models import Models


@dataclass(frozen=True, kw_only=True)
class TaskArithmetic(Method):
    """Adds what each expert has learned to the base, all scaled alike.

    Choose it first for experts of different tasks: it costs one pass and has one number to tune. A negative scale
    unlearns.

        θ = θ₀ + λ Σ_e (θ_e − θ₀)

    Args:
        scale: λ; 0.3 suits about eight experts, 1 a single one.

    Cost: one pass.

    Source: Ilharco et al., Editing Models with Task Arithmetic, ICLR 2023; λ = 0.3 is what the eight-task comparisons
        of FusionBench use. Computed as (1 − λE) θ₀ + λ Σ θ_e in float64, so that one expert at λ = 1 comes back bit
        for bit.
    """

    name: ClassVar[str] = "task_arithmetic"
    shows_not_finite: ClassVar[bool] = True
    claims: ClassVar[frozenset[str]] = frozenset({
        "one expert at coefficient one", "order is free", "equal experts", "the base stays", "scales",
        "disjoint supports add", "homogeneous",
    })  # fmt: skip
    golden: ClassVar[tuple[Golden, ...]] = (
        Golden((1.0, 1.0), ((2.0, 1.0), (1.0, 3.0)), (1.3, 1.6), "by hand: 1 + 0.3·1 and 1 + 0.3·2"),
    )

    scale: float = 0.3

    def rule(self, models: Models) -> Rule:
        """The base and the scaled changes."""
        return partial(moved, coefficients=[self.scale] * len(models.experts))
