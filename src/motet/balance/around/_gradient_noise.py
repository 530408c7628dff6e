"""Annealed gradient noise."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from motet._errors import RequestError
from motet.balance._balancer import Balancer
from motet.balance._equal import EqualWeighting
from motet.balance.around._reworking import Reworking


class GradientNoise(Reworking):
    """Adds normal noise to the gradient, less and less of it.

    Choose it for very deep or badly started networks, which noise helps out of poor regions early on.

        d + n,   n ~ N(0, σ_t² I),  σ_t² = η / (1 + t)^γ,  t = 0, 1, … the steps before this one

    Args:
        inner: the method that finds d; equal weights when it is left out.
        eta: η, the variance at the first step; the paper tries 0.01, 0.3 and 1.
        gamma: γ, how fast it falls.
        seed: of the noise, which is a function of it and of a saved step count, so that a resumed run goes on.

    Raises:
        RequestError: η or γ is negative or not finite.

    Cost: as the method inside, and one draw a parameter.

    Source: Neelakantan et al., Adding Gradient Noise Improves Learning for Very Deep Networks, 2015, with its γ = 0.55
        and the least of its η. The paper adds the noise after clipping: put `ElementwiseClipping` inside. Departure:
        noise is drawn in float32 whatever the parameter's dtype.
    """

    name: ClassVar[str] = "gradient-noise"

    def __init__(self, inner: Balancer | None = None, *, eta: float = 0.01, gamma: float = 0.55, seed: int = 0) -> None:
        super().__init__(inner or EqualWeighting())
        for argument, value in (("eta", eta), ("gamma", gamma)):
            if not 0 <= value < float("inf"):
                message = (
                    f"GradientNoise got {argument}={value}; a finite number of 0 or more was expected. The paper takes "
                    "eta=0.01 and gamma=0.55."
                )
                raise RequestError(message)
        self.eta, self.gamma, self.seed = eta, gamma, seed
        self.steps: Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def rework(self, grads: Sequence[Tensor]) -> list[Tensor]:
        """The gradients with this step's noise."""
        size = (self.eta / (1 + int(self.steps)) ** self.gamma) ** 0.5
        start = (self.seed * 1_000_003 + int(self.steps)) % 2**31
        self.steps += 1
        if size == 0:
            return list(grads)
        generators = {device: torch.Generator(device).manual_seed(start) for device in {grad.device for grad in grads}}
        return [grad + (size * _normal(grad, generators[grad.device])).to(grad) for grad in grads]

    def reset(self) -> None:
        """Starts the noise again, and the method inside."""
        self.inner.reset()
        self.steps.zero_()


def _normal(grad: Tensor, generator: torch.Generator) -> Tensor:
    dtype = torch.complex64 if grad.is_complex() else torch.float32
    return torch.randn(grad.shape, generator=generator, device=grad.device, dtype=dtype)
