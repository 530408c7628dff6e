"""Sharpness-aware multi-task optimisation with joint perturbation (SAMO)."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from motet._errors import RequestError
from motet.balance._balancer import Balancer
from motet.balance._fairgrad import FairGrad
from motet.balance.around._given import GivenView, direction_of, head_weights
from motet.balance.around._task_gradients import (
    TaskGradient,
    fill,
    gradient_around,
    gradients,
    overflowed,
    shared_parameters,
    task_gradient,
)
from motet.balance.around._wrapper import Wrapper, check_takes_gradients
from motet.balance.engine._batch import Batch
from motet.balance.engine._replay import moved
from motet.balance.engine._setting import OverflowedError, own_gradients
from motet.balance.engine._update import Step
from motet.balance.parts._ascent import ascent, check_radius, norm_of


class SAMO(Wrapper):
    """Looks for flat regions along one gradient that all tasks share and a rough one of each task's own.

    Choose it over `FMTL` when K more backward passes are too dear: a task's own direction is estimated from two
    forward passes.

        ĝ_k = (L_k(θ + μ z_k) − L_k(θ − μ z_k)) / (2 μ) · z_k,   z_k ~ N(0, I) over the shared parameters
        ε_k = ρ e / ‖e‖,  e = (1 − β) g + β ĝ_k, layer by layer ĝ_k as long as g;   g = ∂ mean_j L_j
        d = Agg(∂L_1(θ + ε_1) … ∂L_K(θ + ε_K));   heads move by ρ g / ‖g‖ and get their own ∂L_k(θ + ε_k)

    Args:
        inner: Agg, a method that decides from gradients; FairGrad when it is left out.
        rho: ρ, the radius; the paper takes 1e-5 to 3e-3.
        beta: β in [0, 1], the part of the task's own direction.
        mu: μ > 0, how far the estimate looks.
        adaptive: measure distance relative to each parameter: ε = ρ θ² e / ‖|θ| e‖.
        seed: of the directions z_k.

    Raises:
        RequestError: a bad radius, β or μ, or a method inside that needs more than gradients; from `backward`, losses
            in the place of a closure, or no `shared`.

    Cost: 3 K + 1 forward passes of all tasks, 2 K of them without a graph, and K + 1 backward passes; a (K, P) matrix.

    Source: Ban, Subramani and Ji, SAMO: A Lightweight Sharpness-Aware Approach for Multi-Task Optimization with Joint
        Global-Local Perturbation, ICCV 2025, with ρ = 0.001, β = 0.5 and μ = 0.01 of the released runs. Departures: the
        forward passes of the estimate run in the model's own mode with the first pass's dropout masks and leave no
        statistics behind, where the released code switches to evaluation; layers are normalised always, where its runs
        on NYUv2 leave that out; a zero gradient moves nothing.
    """

    name: ClassVar[str] = "samo"
    needs_closure = True
    needs_network = True

    def __init__(
        self,
        inner: Balancer | None = None,
        *,
        rho: float = 0.001,
        beta: float = 0.5,
        mu: float = 0.01,
        adaptive: bool = False,
        seed: int = 0,
    ) -> None:
        inner = inner or FairGrad()
        check_takes_gradients("SAMO", inner)
        check_radius("SAMO", rho)
        if not 0 <= beta <= 1 or not 0 < mu < float("inf"):
            message = f"SAMO got beta={beta} and mu={mu}; 0 ≤ beta ≤ 1 and mu > 0 were expected. Try 0.5 and 0.01."
            raise RequestError(message)
        super().__init__(inner)
        self.place = "parameters"
        self.rho, self.beta, self.mu, self.adaptive, self.seed = rho, beta, mu, adaptive, seed
        self.steps: Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def reset(self) -> None:
        """Starts the stream of directions again, and the method inside."""
        self.inner.reset()
        self.steps.zero_()

    def take(self, batch: Batch) -> Step:
        """The method's direction from every task's gradient at its own point nearby."""
        shared = shared_parameters(batch, "SAMO")
        generator = torch.Generator(shared[0].device)
        generator.manual_seed((self.seed * 1_000_003 + int(self.steps)) % 2**31)
        self.steps += 1
        try:
            mean = _mean_gradient(batch, shared)
            around = [self._around(batch, task, shared, mean, generator) for task in batch.losses]
        except OverflowedError:
            return overflowed(batch)
        rows = torch.stack([grad.row for grad in around])
        view = GivenView(batch.measured, rows, method="SAMO")
        with own_gradients(batch.setting, self.parameters()):
            update = self.inner.update(view)
        fill(batch, shared, direction_of(update, rows), around, head_weights(update))
        return Step({}, batch.skipped, view.formed, view.names)

    def _around(
        self, batch: Batch, task: str, shared: Sequence[Tensor], mean: dict[int, Tensor], generator: torch.Generator
    ) -> TaskGradient:
        """One task's gradient at its own point nearby."""
        rough = self._rough(batch, task, shared, mean, generator)
        common = [((1 - self.beta) * mean[id(leaf)] + self.beta * grad) for leaf, grad in rough]
        joint = list(zip(shared, common, strict=True))
        places = {id(leaf) for leaf in shared}
        own = [(leaf, mean[id(leaf)]) for leaf in batch.reached([task]) if id(leaf) not in places]
        offsets = [pair for grads in (joint, own) for pair in ascent(grads, self.rho, adaptive=self.adaptive)]
        with moved(offsets):
            found = gradient_around(batch, task, shared)
        return found or task_gradient(batch, task, shared)

    def _rough(
        self, batch: Batch, task: str, shared: Sequence[Tensor], mean: dict[int, Tensor], generator: torch.Generator
    ) -> list[tuple[Tensor, Tensor]]:
        """ĝ of one task from two forward passes, each layer as long as the mean gradient's."""
        draws = [
            (leaf, torch.randn(leaf.shape, generator=generator, device=leaf.device, dtype=torch.float32).to(leaf))
            for leaf in shared
        ]
        if self.beta == 0:
            return draws
        values = []
        for sign in (self.mu, -self.mu):
            with moved([(leaf, sign * draw) for leaf, draw in draws]):
                values.append(batch.only([task]).values())
        slope = float((values[0] - values[1]) / (2 * self.mu))
        # Layer by layer, the estimate's own length cancels: of the slope only its sign remains.
        sign = (slope > 0) - (slope < 0)
        return [(leaf, draw * (sign * norm_of([mean[id(leaf)]]) / max(norm_of([draw]), _TINY))) for leaf, draw in draws]


def _mean_gradient(batch: Batch, shared: Sequence[Tensor]) -> dict[int, Tensor]:
    """The gradient of the losses' mean at everything that they depend on, by the parameter's id."""
    places = {id(leaf) for leaf in shared}
    leaves = [*shared, *(leaf for leaf in batch.reached(batch.losses) if id(leaf) not in places)]
    mean = torch.stack(list(batch.losses.values())).mean()
    return {id(leaf): grad for leaf, grad in gradients(batch, mean, leaves)}


_TINY = 1e-300
