"""Scale-invariant weighting (SI)."""

from typing import ClassVar

from motet.balance._balancer import Balancer, Update
from motet.balance._claims import Golden
from motet.balance.engine._view import View
from motet.balance.parts._positive import positive_losses


class ScaleInvariant(Balancer):
    """Minimises the sum of the losses' logarithms, so that no unit or scale of a loss matters.

    Choose it when the tasks' losses differ by orders of magnitude: it costs nothing and is often as good as methods
    that compare gradients.

        L = Σ_k log L_k,  that is w_k = 1 / L_k

    A loss below 1e-12 is weighted as one of 1e-12.

    Args:
        skip_bad: leave a task with a NaN or infinite loss out of the step instead of raising.

    Raises:
        RequestError: from `backward`, where a loss is negative.

    Cost: one backward pass.

    Source: the SI baseline of Navon et al., Multi-Task Learning as a Bargaining Game, ICML 2022. Departure: the floor
        under the losses.

    Example:
        >>> import torch
        >>> w = torch.tensor(1.0, requires_grad=True)
        >>> ScaleInvariant().backward({"a": 4 * w, "b": 0.5 * w}).weights
        {'a': 0.25, 'b': 2.0}
    """

    name: ClassVar[str] = "scale-invariant"
    claims: ClassVar[frozenset[str]] = frozenset({"scale invariant", "zero is harmless"})
    golden: ClassVar[tuple[Golden, ...]] = (
        Golden(((2.0, 0.0), (0.0, 3.0)), (0.5, 6.0), "by hand: (2, 0)/4 + (0, 3)/0.5", losses=(4.0, 0.5)),
    )

    def update(self, view: View) -> Update:
        """One over each loss."""
        return Update(1.0 / positive_losses(view), heads=True)
