"""Gradient normalisation (GradNorm)."""

from typing import ClassVar

import torch
from torch import Tensor

from motet.balance._claims import Golden
from motet.balance.engine._sketch import Source
from motet.balance.engine._update import Update
from motet.balance.engine._view import View
from motet.balance.parts._gramian_method import GramianBalancer
from motet.balance.parts._per_task import PerTask

_LEAST = 1e-2


class GradNorm(GramianBalancer):
    """Learns weights that make gradients equally long, longer for tasks that have learned less.

    Choose it to hold tasks at a common pace over a whole run; pass the last shared layer as `shared`, as the paper
    does, or `features=`, to make it cheap.

        G_k = w_k ‖g_k‖,  r_k = (L_k / L_k(0)) / mean_j (L_j / L_j(0)),  minimise Σ_k |G_k − mean_j G_j · r_k^α| over w
        with the mean held fixed, one step at each step; then w is scaled to Σ w = T;   L = Σ_k w_k L_k

    Args:
        alpha: how hard tasks are pulled to one pace, at least 0.
        rate: of learning the weights.
        gramian: "exact"; or "sketch" or a `Sketch`, for an estimate from part of the rows.
        skip_bad: leave a task with a NaN or infinite loss out of the step instead of raising.

    Cost: the Gramian, one backward of the weighted sum, and two numbers a task.

    Source: Chen et al., GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep Multitask Networks, ICML
        2018, algorithm 1, α = 1.5, rate 0.025. Departures: the gradient of the weights in closed form, since G_k is
        linear in w_k, so that no second-order graph is built; it is divided by the mean ‖g_j‖ and held within ±1, and
        weights stay above 0.01 before they are scaled, so that units of the losses do not matter and no weight turns
        negative. Heads get the gradient of the weighted loss, as there.
    """

    name: ClassVar[str] = "gradnorm"
    claims: ClassVar[frozenset[str]] = frozenset({
        "scale equivariant", "mean when agreeing", "one task is plain", "zero is harmless",
    })  # fmt: skip
    golden: ClassVar[tuple[Golden, ...]] = (
        Golden(((1.0, 0.0), (0.0, 3.0)), (1.0, 3.0), "by hand: weights start at one"),
    )

    def __init__(
        self, *, alpha: float = 1.5, rate: float = 0.025, gramian: Source = "exact", skip_bad: bool = False
    ) -> None:
        super().__init__(gramian=gramian, skip_bad=skip_bad)
        self.alpha, self.rate = alpha, rate
        self.weights, self.first_losses = PerTask(), PerTask()

    def update(self, view: View) -> Update:
        """The weights learned so far; then they are moved."""
        losses = view.losses.cpu().clamp(min=1e-12)
        one = torch.ones((), dtype=torch.float64)
        self.first_losses.start(view.names, losses)
        first = self.first_losses.rows(view.names, one)
        weights = _scaled(self.weights.rows(view.names, one))
        norms = self.gramian_of(view).diagonal().cpu().clamp(min=0).sqrt()
        self.weights.set(view.names, _scaled(self._moved(weights, norms, losses / first)))
        return Update(weights.to(view.gramian), heads=True)

    def _moved(self, weights: Tensor, norms: Tensor, ratios: Tensor) -> Tensor:
        lengths = weights * norms
        goals = lengths.mean() * (ratios / ratios.mean()) ** self.alpha
        gradient = torch.sign(lengths - goals) * norms / norms.mean().clamp(min=1e-300)
        return (weights - self.rate * gradient.clamp(-1, 1)).clamp(min=_LEAST)

    def reset(self) -> None:
        """Forgets the weights and the first losses."""
        super().reset()
        self.weights.reset()
        self.first_losses.reset()


def _scaled(weights: Tensor) -> Tensor:
    return weights * (len(weights) / weights.sum())
