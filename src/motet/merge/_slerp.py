"""Spherical interpolation of two models."""

import math
from dataclasses import dataclass
from typing import ClassVar

from motet.merge._claims import Golden
from motet.merge._dtypes import Array
from motet.merge._linear import inner_products, weighted
from motet.merge._method import Method, Rule, check_range
from motet.merge._models import Models


@dataclass(frozen=True, kw_only=True)
class Slerp(Method):
    """Turns each tensor of the base towards the expert's along the arc between them, which keeps lengths.

    Choose it to blend two models, given as base and expert, where a straight line would shrink the weights.

        θ = sin((1 − t)φ)/sin φ · θ₀ + sin(tφ)/sin φ · θ₁,   φ the angle between θ₀ and θ₁, by tensor

    Args:
        fraction: t, from 0 (the base) to 1 (the expert).

    Cost: two passes.

    Source: Shoemake, Animating rotation with quaternion curves, SIGGRAPH 1985, on weights as mergekit does it: a
        straight line where the cosine is beyond ±0.9995, or where a tensor is zero.
    """

    name: ClassVar[str] = "slerp"
    num_experts: ClassVar[tuple[int, int | None]] = (1, 1)
    claims: ClassVar[frozenset[str]] = frozenset({"the base stays", "homogeneous"})
    golden: ClassVar[tuple[Golden, ...]] = (
        Golden((1.0, 0.0), ((0.0, 1.0),), (0.70710678, 0.70710678), "by hand: half of a right angle"),
        Golden((1.0, 0.0), ((-1.0, 0.0),), (0.0, 0.0), "by hand: opposite, the straight line"),
    )

    fraction: float = 0.5

    def rule(self, models: Models) -> Rule:
        """The two coefficients of each tensor, then the sums."""
        check_range(self.name, "fraction", self.fraction, 0, 1)
        self.check(len(models.experts))
        found = models.each(lambda name: _coefficients(inner_products(models, name), self.fraction))
        return lambda piece: weighted(piece, found[piece.name][0], [found[piece.name][1]])


def _coefficients(products: Array, fraction: float) -> tuple[float, float]:
    base, along, change = float(products[0, 0]), float(products[0, 1]), float(products[1, 1])
    other = base + 2 * along + change  # θ₁ is the base and its change
    length = math.sqrt(base * max(other, 0.0))
    cosine = (base + along) / length if length > 0 else 1.0
    if abs(cosine) > 0.9995:
        return 1 - fraction, fraction
    angle = math.acos(cosine)
    return math.sin((1 - fraction) * angle) / math.sin(angle), math.sin(fraction * angle) / math.sin(angle)
