"""Task-based flat regions (F-MTL)."""

import copy
from collections.abc import Sequence
from typing import ClassVar

import torch

from motet.balance._balancer import Balancer
from motet.balance._cagrad import CAGrad
from motet.balance.around._given import GivenView, direction_of, head_weights
from motet.balance.around._task_gradients import (
    TaskGradient,
    fill,
    gradient_around,
    overflowed,
    shared_parameters,
    task_gradient,
)
from motet.balance.around._wrapper import Wrapper, check_takes_gradients
from motet.balance.engine._batch import Batch
from motet.balance.engine._replay import moved
from motet.balance.engine._setting import OverflowedError, own_gradients
from motet.balance.engine._update import Step
from motet.balance.parts._ascent import ascent, check_radius


class FMTL(Wrapper):
    """Looks for parameters that are flat for every task, and balances falling and flattening apart.

    Choose it over `SAM` where tasks fight: each task has a worst point of its own, and what lowers the losses need not
    be what flattens them. `SAMO` is cheaper.

        ε_k = ρ g_k / ‖g_k‖, for shared and own parameters apart;  s_k = ∂L_k(θ + ε_k)
        d = Agg(g_1 … g_K) + Agg(s_1 − g_1 … s_K − g_K);   heads get their part of s_k

    Args:
        inner: Agg, a method that decides from gradients; CAGrad with c = 0.4 when it is left out. `MGDA` wants
            normalisation="l2" here.
        rho: ρ, the radius; 2 suits the adaptive form.
        adaptive: measure distance relative to each parameter: ε = ρ θ² g / ‖|θ| g‖.

    Raises:
        RequestError: a bad radius, or a method inside that needs more than gradients; from `backward`, losses in the
            place of a closure, or no `shared`.

    Cost: K + 1 forward passes of all tasks and 2 K backward passes of one; two (K, P) matrices.

    Source: Phan et al., Beyond Losses Reweighting: Empowering Multi-Task Learning via the Generalization Perspective,
        ICCV 2025, with its released code's ρ of 0.05, 2 where adaptive. Departures: Agg is a deep copy of
        itself for the flat half, so that a method with state keeps two; where a method weights heads, it weights their
        s_k; a zero gradient moves nothing.
    """

    name: ClassVar[str] = "f-mtl"
    needs_closure = True
    needs_network = True

    def __init__(self, inner: Balancer | None = None, *, rho: float = 0.05, adaptive: bool = False) -> None:
        inner = inner or CAGrad()
        check_takes_gradients("FMTL", inner)
        check_radius("FMTL", rho)
        super().__init__(inner)
        self.flat = copy.deepcopy(inner)
        self.place = "parameters"
        self.rho, self.adaptive = rho, adaptive

    def add_tasks(self, tasks: Sequence[str]) -> None:
        """Tells both halves which tasks will come."""
        self.inner.add_tasks(tasks)
        self.flat.add_tasks(tasks)

    def reset(self) -> None:
        """Forgets what both halves have learned."""
        self.inner.reset()
        self.flat.reset()

    def take(self, batch: Batch) -> Step:
        """The sum of both halves' directions."""
        shared = shared_parameters(batch, "FMTL")
        try:
            here = [task_gradient(batch, task, shared) for task in batch.losses]
            around = [self._around(batch, task, grad) for task, grad in zip(batch.losses, here, strict=True)]
        except OverflowedError:
            return overflowed(batch)
        rows = torch.stack([grad.row for grad in here])
        flat = torch.stack([grad.row for grad in around]) - rows
        view = GivenView(batch.measured, rows, method="FMTL")
        with own_gradients(batch.setting, self.parameters()):
            falling = self.inner.update(view)
            flattening = self.flat.update(GivenView(batch.measured, flat, method="FMTL"))
        direction = direction_of(falling, rows) + direction_of(flattening, flat)
        fill(batch, shared, direction, around, head_weights(falling))
        return Step({}, batch.skipped, view.formed, view.names)

    def _around(self, batch: Batch, task: str, here: TaskGradient) -> TaskGradient:
        offsets = [
            pair for grads in (here.shared, here.own) for pair in ascent(grads, self.rho, adaptive=self.adaptive)
        ]
        with moved(offsets):
            return gradient_around(batch, task, [leaf for leaf, _ in here.shared]) or here
