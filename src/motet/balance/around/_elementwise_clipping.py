"""Element-wise clipping."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from motet._errors import RequestError
from motet.balance._balancer import Balancer
from motet.balance._equal import EqualWeighting
from motet.balance.around._reworking import Reworking


class ElementwiseClipping(Reworking):
    """Bounds every number of the gradient, so that single rows or pixels of great error cannot rule a step.

    Choose it over clipping the gradient's norm where few coordinates are at fault: the others keep their size.

        d_i ← min(max(d_i, −c), c)

    Args:
        inner: the method that finds d; equal weights when it is left out.
        limit: c > 0, in the gradient's unit.

    Raises:
        RequestError: the limit is not positive.

    Cost: as the method inside.

    Source: Mikolov, Statistical Language Models Based on Neural Networks, thesis, 2012, as told by Pascanu, Mikolov and
        Bengio, On the difficulty of training recurrent neural networks, ICML 2013. Choices of ours: only what is new in
        `.grad` is clipped, after the tasks are balanced; a limit of 1; complex numbers are clipped by part, real and
        imaginary. Pixel-wise clipping of images that are themselves optimised bounds each pixel's norm instead; it
        belongs at the image and is not this.
    """

    name: ClassVar[str] = "element-wise-clipping"

    def __init__(self, inner: Balancer | None = None, *, limit: float = 1.0) -> None:
        super().__init__(inner or EqualWeighting())
        if not limit > 0:
            message = f"ElementwiseClipping got limit={limit}; a number above 0 was expected. Try 1."
            raise RequestError(message)
        self.limit = limit

    def rework(self, grads: Sequence[Tensor]) -> list[Tensor]:
        """The gradients within the limit."""
        return [self._clipped(grad) for grad in grads]

    def _clipped(self, grad: Tensor) -> Tensor:
        if grad.is_complex():
            return torch.view_as_complex(torch.view_as_real(grad).clamp(-self.limit, self.limit))
        return grad.clamp(-self.limit, self.limit)
