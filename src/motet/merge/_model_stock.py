"""Model stock."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from motet.merge._claims import Golden
from motet.merge._dtypes import Array
from motet.merge._linear import inner_products, moved
from motet.merge._method import Method, Rule
from motet.merge._models import Models


@dataclass(frozen=True, kw_only=True)
class ModelStock(Method):
    """Averages the experts, and goes back to the base as far as their changes disagree in angle.

    Choose it for a few fine-tunings of one task: two of them come near to what a soup of many reaches.

        t = E cos φ / (1 + (E − 1) cos φ),   θ = t·mean_e θ_e + (1 − t) θ₀,   φ the angle between changes, by tensor

    Cost: two passes.

    Source: Jang et al., Model Stock, ECCV 2024. The paper defines one angle; for more than two experts the mean of the
        pairwise cosines is taken, as mergekit does. Departure: where the mean cosine is negative, t is 0 (the base),
        since the formula leaves [0, 1] and has a pole there.
    """

    name: ClassVar[str] = "model_stock"
    num_experts: ClassVar[tuple[int, int | None]] = (2, None)
    claims: ClassVar[frozenset[str]] = frozenset({"order is free", "equal experts", "the base stays", "homogeneous"})
    golden: ClassVar[tuple[Golden, ...]] = (
        Golden((0.0, 0.0), ((1.0, 0.0), (1.0, 1.0)), (0.82842712, 0.41421356), "by hand: cos 45° gives t = 2√2 − 2"),
        Golden((1.0, 1.0), ((2.0, 1.0), (1.0, 2.0)), (1.0, 1.0), "by hand: a right angle, the base"),
    )

    def rule(self, models: Models) -> Rule:
        """The part of the mean by tensor, then the sums."""
        self.check(len(models.experts))
        parts = {
            name: _part(products[1:, 1:])
            for name, products in models.each(lambda name: inner_products(models, name)).items()
        }
        count = len(models.experts)
        return lambda piece: moved(piece, [parts[piece.name] / count] * count)


def _part(gram_EE: Array) -> float:
    lengths = np.sqrt(np.diag(gram_EE))
    products = np.outer(lengths, lengths)
    cosines = np.divide(gram_EE, products, out=np.zeros_like(gram_EE), where=products > 0)
    count = len(gram_EE)
    cosine = float(np.clip((cosines.sum() - np.trace(cosines)) / (count * (count - 1)), 0, 1))
    # Equal changes up to rounding are the mean itself.
    return 1.0 if cosine > 1 - 1e-12 else count * cosine / (1 + (count - 1) * cosine)
