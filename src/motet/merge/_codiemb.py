"""CoDiEmb's fusion of checkpoints along a training, guided by how far each has moved."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from motet.merge._claims import Golden
from motet.merge._dtypes import Array
from motet.merge._linear import inner_products, moved
from motet.merge._method import Method, Rule, check_range
from motet.merge._models import Models, Piece


@dataclass(frozen=True, kw_only=True)
class CoDiEmb(Method):
    """Averages checkpoints of a training, with weight by tensor on those that have moved furthest from the base there.

    Choose it for checkpoints of one training on several tasks, in the place of a plain average.

        w_ep = d_ep^q / Σ_j d_jp^q,   d_ep = ‖θ_ep − θ₀p‖,   θ_p = θ₀p + Σ_e w_ep (θ_ep − θ₀p)

    Args:
        power: q; 0 is the plain average.

    Cost: two passes.

    Source: CoDiEmb (Tencent, 2025), its delta-guided model fusion. The released code lacks it, and the abstract says
        only that weights come from the parameters' deviations: the formula is our reading, not the authors' equation.
    """

    name: ClassVar[str] = "codiemb"
    claims: ClassVar[frozenset[str]] = frozenset({
        "one expert at coefficient one", "order is free", "equal experts", "the base stays", "homogeneous",
    })  # fmt: skip
    golden: ClassVar[tuple[Golden, ...]] = (
        Golden((0.0, 0.0), ((3.0, 4.0), (15.0, 0.0)), (12.0, 1.0), "by hand: lengths 5 and 15, weights 1/4 and 3/4"),
    )

    power: float = 1.0

    def rule(self, models: Models) -> Rule:
        """The weights of each tensor, then the sums."""
        check_range(self.name, "power", self.power, 0, 100)
        lengths = {
            name: np.sqrt(np.diag(products)[1:])
            for name, products in models.each(lambda name: inner_products(models, name)).items()
        }

        def merged(piece: Piece) -> Array:
            far = lengths[piece.name]
            largest = far.max(initial=0.0)
            weights = (far / largest) ** self.power if largest > 0 else np.ones_like(far)
            return moved(piece, (weights / weights.sum()).tolist())

        return merged
