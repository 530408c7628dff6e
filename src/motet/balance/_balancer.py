"""What a balancing method is: K losses to one update."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from motet.balance._claims import Golden
from motet.balance.engine._apply import apply, spoil
from motet.balance.engine._batch import Batch, Closure, Losses, read_batch
from motet.balance.engine._meeting import settle
from motet.balance.engine._ranks import Ranks
from motet.balance.engine._setting import OverflowedError, own_gradients
from motet.balance.engine._update import Step, Update
from motet.balance.engine._view import View

__all__ = ["Balancer", "Step", "Update"]


class Balancer(nn.Module, ABC):
    """A method that turns the losses of several tasks into one update.

    Every method builds without arguments. State worth saving is parameters or buffers keyed by task name, so that a
    `state_dict` resumes exactly and a batch without a task is legal.

    Args:
        skip_bad: leave a task with a NaN or infinite loss out of the step instead of raising.
    """

    name: ClassVar[str]
    place: Literal["features", "parameters"] = "features"  # where a training loop compares gradients
    needs_closure: bool = False  # whether it evaluates the losses more than once
    needs_features: bool = False  # whether it reads the shared features wherever gradients are compared
    needs_network: bool = False  # whether gradients alone, without the losses' graph, do not tell it what to do
    claims: ClassVar[frozenset[str]] = frozenset()
    golden: ClassVar[tuple[Golden, ...]] = ()

    def __init__(self, *, skip_bad: bool = False) -> None:
        super().__init__()
        self.skip_bad = skip_bad

    def add_tasks(self, tasks: Sequence[str]) -> None:
        """Tells the method which tasks will come, before an optimiser is built; most methods need not know."""

    def reset(self) -> None:
        """Forgets what the method has learned; a method without state has nothing to forget."""

    @abstractmethod
    def update(self, view: View) -> Update:
        """What to do in this step, from as little of the view as the method needs."""

    def backward(
        self,
        losses: Losses | Closure,
        *,
        shared: Iterable[Tensor] | None = None,
        features: Tensor | Sequence[Tensor] | None = None,
        scaler: torch.amp.GradScaler | None = None,
        ranks: Ranks | None = None,
    ) -> Step:
        """Fills `.grad` of everything that the losses depend on; what is there already is added to.

        Args:
            losses: a scalar for each task that the batch has labels for; or a function of no arguments that runs the
                forward pass and returns them, or them and the features: (losses, features). A method that looks around
                (`needs_closure`) calls it several times, on the same batch; any other calls it once.
            shared: parameters at which gradients are compared and combined; a method of losses alone needs none.
            features: shared features, one tensor or several, at which gradients are compared instead: one pass through
                the trunk, whatever the number of tasks.
            scaler: scales the losses, which are given unscaled; the method sees them, and their gradients, as they are,
                and `.grad` holds what the scaler expects. Where scaled gradients overflow, `.grad` is NaN, so that the
                scaler skips the step, and all tasks count as skipped.
            ranks: the processes of a data-parallel run; gradients are then compared and averaged over all of them.

        Raises:
            RequestError: no loss, a loss that is not a scalar, not finite, without a gradient, or that does not depend
                on the shared parameters; a method of gradients without `shared` or `features`; losses where a closure
                is needed, or a closure that returns something else; sharded parameters where whole ones are needed.

        Cost: as the method says.
        """
        batch = read_batch(
            losses,
            shared,
            features,
            method=type(self).__name__,
            again=self.needs_closure,
            skip_bad=self.skip_bad,
            settle=None if scaler is None and ranks is None else partial(settle, scaler=scaler, ranks=ranks),
        )
        return self.take(batch) if batch.losses else Step({}, batch.skipped)

    def take(self, batch: Batch) -> Step:
        """One step from a batch that is already checked: what `backward` does, and what wrappers call and change."""
        view = View(batch.losses, batch.shared, batch.features, method=type(self).__name__, setting=batch.setting)
        try:
            with own_gradients(batch.setting, self.parameters()):
                update = self.update(view)
        except OverflowedError:
            spoil(batch.losses, batch.setting)
            return Step({}, (*batch.skipped, *view.names))
        apply(view, update)
        weights = {} if update.weights is None else dict(zip(view.names, update.weights.tolist(), strict=True))
        return Step(weights, batch.skipped, view.__dict__.get("gramian"), view.names, source=view.source)

    def __repr__(self) -> str:
        """The call that builds it, as far as its arguments are not the defaults."""
        shown = []
        for name, parameter in inspect.signature(type(self)).parameters.items():
            value = getattr(self, name, parameter.default)
            if name == "inner":
                shown.append(repr(value))
            elif value != parameter.default:
                shown.append(f"{name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"
