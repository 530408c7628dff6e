"""Geometric loss strategy (GLS)."""

from typing import ClassVar

from motet.balance._balancer import Balancer, Update
from motet.balance._claims import Golden
from motet.balance.engine._view import View
from motet.balance.parts._positive import geometric_mean, positive_losses


class GLS(Balancer):
    """Minimises the geometric mean of the losses: every task's relative progress counts the same.

    Choose it over the sum of logarithms (`ScaleInvariant`, the same trade-off) when steps should shrink as the losses
    do.

        L = (Π_k L_k)^(1/K) = exp(mean_k log L_k),  that is w_k = L / (K L_k)

    A loss below 1e-12 is taken as one of 1e-12.

    Args:
        skip_bad: leave a task with a NaN or infinite loss out of the step instead of raising.

    Raises:
        RequestError: from `backward`, where a loss is negative.

    Cost: one backward pass.

    Source: Chennupati et al., MultiNet++: Multi-Stream Feature Aggregation and Geometric Loss Strategy for Multi-Task
        Learning, CVPR workshops 2019. Departures: the mean of logarithms in the place of the product, which overflows;
        the floor under the losses.
    """

    name: ClassVar[str] = "gls"
    claims: ClassVar[frozenset[str]] = frozenset({"scale equivariant", "one task is plain", "zero is harmless"})
    golden: ClassVar[tuple[Golden, ...]] = (
        Golden(((2.0, 0.0), (0.0, 3.0)), (0.25, 6.0), "by hand: √(8 · ½) = 2; w = (2/16, 2/1)", losses=(8.0, 0.5)),
    )

    def update(self, view: View) -> Update:
        """The gradient of the geometric mean with respect to the losses."""
        losses = positive_losses(view)
        return Update(geometric_mean(losses) / (len(losses) * losses), heads=True)
