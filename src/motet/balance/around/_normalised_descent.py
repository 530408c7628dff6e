"""Normalised descent."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from motet._errors import RequestError
from motet.balance._balancer import Balancer
from motet.balance._equal import EqualWeighting
from motet.balance.around._reworking import Reworking
from motet.balance.parts._ascent import norm_of


class NormalisedDescent(Reworking):
    """Gives every step the same length, whatever the size of the gradient.

    Choose it with plain SGD where gradients vanish on plateaus or explode at cliffs, or to compare methods by the
    direction that they find alone. Adam undoes it.

        d ← c · d / ‖d‖,   over all parameters together; zero stays zero

    Args:
        inner: the method that finds d; equal weights when it is left out.
        length: c > 0.

    Raises:
        RequestError: the length is not positive and finite.

    Cost: as the method inside.

    Source: Nesterov, Minimization methods for nonsmooth convex and quasiconvex functions, 1984; Hazan, Levy and
        Shalev-Shwartz, Beyond Convexity: Stochastic Quasi-Convex Optimization, NIPS 2015.
    """

    name: ClassVar[str] = "normalised-descent"

    def __init__(self, inner: Balancer | None = None, *, length: float = 1.0) -> None:
        super().__init__(inner or EqualWeighting())
        if not 0 < length < float("inf"):
            message = f"NormalisedDescent got length={length}; a finite number above 0 was expected. Try 1."
            raise RequestError(message)
        self.length = length

    def rework(self, grads: Sequence[Tensor]) -> list[Tensor]:
        """The gradients at the given length."""
        norm = norm_of(grads)
        return [grad if norm == 0 else (grad / norm) * self.length for grad in grads]
