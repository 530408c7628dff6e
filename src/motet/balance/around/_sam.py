"""Sharpness-aware minimisation (SAM)."""

import copy
from typing import ClassVar

from torch import Tensor

from motet.balance._balancer import Balancer
from motet.balance._equal import EqualWeighting
from motet.balance.around._wrapper import Wrapper, check_ready
from motet.balance.engine._apply import grads_set_aside
from motet.balance.engine._batch import Batch
from motet.balance.engine._replay import moved
from motet.balance.engine._update import Step
from motet.balance.parts._ascent import ascent, check_radius


class SAM(Wrapper):
    """Takes the method's step from the worst point nearby, so that training ends in flat regions.

    Choose it for better generalisation at twice the cost; `FMTL` looks for the worst point of each task.

        ε = ρ d / ‖d‖,  d the method's direction at θ, heads included;   step: the method's direction at θ + ε

    Args:
        inner: the method that finds both directions; equal weights when it is left out.
        rho: ρ, the radius; 2 suits the adaptive form.
        adaptive: measure distance relative to each parameter: ε = ρ θ² d / ‖|θ| d‖.

    Raises:
        RequestError: a bad radius; from `backward`, losses in the place of a closure, or an accumulation inside.

    Cost: two forward passes and two of the method's steps; a copy of the parameters, of one gradient and of the
        method's state. The ascent is asked of a copy of the method, so that its state sees each batch once.

    Source: Foret et al., Sharpness-Aware Minimization for Efficiently Improving Generalization, ICLR 2021, equation 3,
        and for the adaptive form Kwon et al., ASAM, ICML 2021, without its constant η. Departures: with several losses,
        the gradient to ascend is the direction of the method inside, which for equal weights is that of their sum; a
        zero gradient moves nothing, where released code adds 1e-12 to the norm.
    """

    name: ClassVar[str] = "sam"
    needs_closure = True
    needs_network = True

    def __init__(self, inner: Balancer | None = None, *, rho: float = 0.05, adaptive: bool = False) -> None:
        super().__init__(inner or EqualWeighting())
        check_radius("SAM", rho)
        self.rho, self.adaptive = rho, adaptive

    def take(self, batch: Batch) -> Step:
        """The method's step at the worst point nearby."""
        with moved(ascent(self._gradient(batch), self.rho, adaptive=self.adaptive)):
            around = batch.again()
            return self.inner.take(around) if around.losses else Step({}, around.skipped)

    def _gradient(self, batch: Batch) -> list[tuple[Tensor, Tensor]]:
        """What the method would do here; nothing of it stays."""
        leaves = batch.leaves()
        with grads_set_aside(leaves):
            check_ready("SAM", copy.deepcopy(self.inner).take(batch))
            found = [(leaf, leaf.grad) for leaf in leaves if leaf.grad is not None]
            for leaf in leaves:
                leaf.grad = None
        return [(leaf, grad.to_dense() if grad.is_sparse else grad) for leaf, grad in found]
