"""Fast adaptive multitask optimisation (FAMO)."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from motet.balance._balancer import Balancer, Update
from motet.balance._claims import Golden
from motet.balance.engine._meeting import whole_losses
from motet.balance.engine._ranks import Ranks
from motet.balance.engine._view import View
from motet.balance.parts._per_task import PerTask
from motet.balance.parts._positive import FLOOR, check_positive, positive_losses


class FAMO(Balancer):
    """Raises the weight of the task whose loss fell least in the last step, so that all fall at the same rate.

    Choose it where tasks learn at different speeds and gradients are too dear to compare: it reads losses only.

        z = softmax(ξ);  w_k = (z_k / L_k) / Σ_j (z_j / L_j)                          the step's weights
        δ_k = log L_k − log L'_k;  ∇ξ = (∂z/∂ξ)ᵀ δ + γ ξ;  ξ by Adam                  after the step

    with L' the losses after the step. Call `after_step` with the losses of the same batch, computed anew without
    gradients; where it is not called, the next step's losses stand in for them. A loss below 1e-12 is taken as one of
    1e-12.

    Args:
        learning_rate: of Adam on ξ.
        weight_decay: γ.
        skip_bad: leave a task with a NaN or infinite loss out of the step instead of raising.

    Raises:
        RequestError: from `backward`, where a loss is negative.

    Cost: one backward pass, five numbers a task, and one more forward pass where `after_step` is called.

    Source: Liu et al., FAMO: Fast Adaptive Multitask Optimization, NeurIPS 2023, with the learning rate of the released
        code and γ = 0.001 of its runs. Departures: without `after_step`, L' comes from another batch, so that δ carries
        the noise of two batches (the weights follow its mean); lower bounds of the losses are 0; gradients are not
        clipped here. The weights are divided by their sum, as in the paper: the MTRL script multiplies instead.
    """

    name: ClassVar[str] = "famo"
    claims: ClassVar[frozenset[str]] = frozenset({
        "scale equivariant", "mean when agreeing", "one task is plain", "zero is harmless"
    })  # fmt: skip
    golden: ClassVar[tuple[Golden, ...]] = (
        Golden(((2.0, 0.0), (0.0, 3.0)), (0.4, 2.4), "by hand: w = (1/4, 1) / (5/4)", losses=(4.0, 1.0)),
    )

    def __init__(self, *, learning_rate: float = 0.025, weight_decay: float = 1e-3, skip_bad: bool = False) -> None:
        super().__init__(skip_bad=skip_bad)
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.logits, self.first, self.second, self.counts = PerTask(), PerTask(), PerTask(), PerTask()
        self.previous = PerTask()

    def update(self, view: View) -> Update:
        """The weights under the present logits."""
        losses = positive_losses(view)
        self._learn(view.names, losses)
        rates = torch.softmax(self.logits.rows(view.names, losses.new_zeros(())), dim=0) / losses
        self.previous.set(view.names, losses)
        return Update(rates / rates.sum(), heads=True)

    def after_step(self, losses: Mapping[str, Tensor], *, ranks: Ranks | None = None) -> None:
        """Learns from the losses of the same batch after the optimiser's step.

        Args:
            losses: a scalar a task, of `backward`'s tasks or some of them; no gradient is needed.
            ranks: the processes of a data-parallel run, as in `backward`.
        """
        if ranks is not None:
            losses = whole_losses(ranks, losses)
        values = torch.stack([loss.detach().double().reshape(()) for loss in losses.values()])
        check_positive(dict(zip(losses, values.tolist(), strict=True)), type(self).__name__)
        self._learn(tuple(losses), values.clamp(min=FLOOR))

    def reset(self) -> None:
        """Starts from equal logits again."""
        for state in (self.logits, self.first, self.second, self.counts, self.previous):
            state.reset()

    def _learn(self, tasks: Sequence[str], losses: Tensor) -> None:
        """One step of Adam on the logits of the tasks that have a loss from before and one from after."""
        places = [place for place, task in enumerate(tasks) if task in self.previous and bool(losses[place].isfinite())]
        names, zero = [tasks[place] for place in places], losses.new_zeros(())
        if names:
            logits = self.logits.rows(names, zero)
            shares = torch.softmax(logits, dim=0)
            falls = self.previous.rows(names, zero).log() - losses[places].log()
            grads = shares * (falls - (shares * falls).sum()) + self.weight_decay * logits
            counts = self.counts.rows(names, zero) + 1
            first = 0.9 * self.first.rows(names, zero) + 0.1 * grads
            second = 0.999 * self.second.rows(names, zero) + 0.001 * grads**2
            step = (first / (1 - 0.9**counts)) / ((second / (1 - 0.999**counts)).sqrt() + 1e-8)
            self.logits.set(names, logits - self.learning_rate * step)
            self.first.set(names, first)
            self.second.set(names, second)
            self.counts.set(names, counts)
        self.previous.reset()
