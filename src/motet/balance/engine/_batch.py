"""What a step starts from: checked losses, where gradients are compared, and how to evaluate them again."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from motet._errors import RequestError
from motet.balance.engine._meeting import whole_losses
from motet.balance.engine._ranks import Ranks, reached, whole
from motet.balance.engine._replay import Replay
from motet.balance.engine._setting import Setting

Losses = Mapping[str, Tensor]
Features = Tensor | Sequence[Tensor]
Closure = Callable[[], Losses | tuple[Losses, Features]]
Settle = Callable[[Losses, Callable[[Losses], None]], tuple[Losses, Setting]]


@dataclass(frozen=True)
class Batch:
    """One batch's losses.

    Args:
        losses: a finite scalar for each task.
        shared: parameters at which gradients are compared, or None.
        features: shared features at which they are compared, or None.
        skipped: tasks whose loss was not finite.
        skip_bad: whether such tasks are left out instead of being refused.
        replay: evaluates the batch again, where the method asks for it.
        setting: what makes the whole batch's gradients of this process's, where there are several or losses are
            scaled.
        settle: finds the setting of new losses.
    """

    losses: dict[str, Tensor]
    shared: list[Tensor] | None = None
    features: list[Tensor] | None = None
    skipped: tuple[str, ...] = ()
    skip_bad: bool = False
    replay: Replay | None = None
    setting: Setting | None = None
    settle: Settle | None = None

    @property
    def ranks(self) -> Ranks | None:
        """The processes, where there are several."""
        return None if self.setting is None else self.setting.ranks

    @property
    def scale(self) -> float | None:
        """By which losses are scaled, if they are."""
        return None if self.setting is None else self.setting.scale

    @property
    def measured(self) -> dict[str, Tensor]:
        """The losses' values, those of the whole batch and unscaled, without a graph."""
        if self.setting is not None:
            return {task: self.setting.values[task] for task in self.losses}
        return {task: loss.detach() for task, loss in self.losses.items()}

    def only(self, tasks: Iterable[str]) -> "Batch":
        """The same batch with some of its tasks."""
        return replace(self, losses={task: self.losses[task] for task in tasks})

    def again(self) -> "Batch":
        """The same batch, evaluated with the parameters as they now are."""
        found, features = _split(self._replayed())
        losses: Losses = {task: found[task] for task in self._own_tasks if task in found}
        setting = None
        if self.settle is None:
            self._check_again(losses)
        else:
            losses, setting = self.settle(losses, self._check_again)
            losses = {task: losses[task] for task in self.losses}
        kept, skipped = _checked(losses, skip_bad=self.skip_bad, setting=setting)
        skipped = self.skipped + skipped
        return replace(self, losses=kept, skipped=skipped, features=_listed(features), setting=setting)

    def values(self) -> Tensor:
        """The losses' values (T,) with the parameters as they now are: the whole batch's, unscaled, without a graph."""
        with torch.no_grad():
            found, _ = _split(self._replayed())
        self._check_there(found)
        values: Losses = {task: found[task] for task in self._own_tasks}
        if self.ranks is not None:
            values = whole_losses(self.ranks, values)
        return torch.stack([values[task].reshape(()) for task in self.losses]).double()

    def reached(self, tasks: Iterable[str]) -> list[Tensor]:
        """Parameters that some tasks' losses depend on, on any process.

        Raises:
            RequestError: one of them is not among those of the ranks.
        """
        here = leaves_of([self.losses[task] for task in tasks])
        return here if self.ranks is None else reached(self.ranks, here)

    def leaves(self) -> list[Tensor]:
        """Every parameter that the losses depend on, those shared first; with several processes, all parameters."""
        if self.ranks is not None:
            return whole(self.ranks)
        shared = [parameter for parameter in self.shared or [] if parameter.requires_grad]
        found = {id(leaf): leaf for leaf in [*shared, *leaves_of(list(self.losses.values()))]}
        return list(found.values())

    @property
    def _own_tasks(self) -> list[str]:
        """Tasks that this process has rows of."""
        return [task for task in self.losses if self.setting is None or task in self.setting.own]

    def _check_there(self, losses: Losses) -> None:
        missing = [task for task in self._own_tasks if task not in losses]
        if missing:
            message = (
                f"Task '{missing[0]}' had a loss at the closure's first call and has none now; the same tasks were "
                "expected at every call. Draw the batch outside the closure."
            )
            raise RequestError(message)

    def _check_again(self, losses: Losses) -> None:
        self._check_there(losses)
        _check_all(losses)

    def _replayed(self) -> Any:
        if self.replay is None:
            message = "This batch cannot be evaluated again. Pass a function that runs the forward pass to backward()."
            raise RequestError(message)
        return self.replay.again()


def read_batch(
    losses: Losses | Closure,
    shared: Iterable[Tensor] | None,
    features: Features | None,
    *,
    method: str,
    again: bool,
    skip_bad: bool,
    settle: Settle | None = None,
) -> Batch:
    """Evaluates the closure, where one is given, and checks the losses.

    Args:
        losses: by task, or the function that computes them.
        shared: parameters at which gradients are compared.
        features: shared features at which they are compared; a closure may give them instead.
        method: the method's name, for messages.
        again: whether the method will evaluate the losses again.
        skip_bad: whether tasks whose loss is not finite are left out instead of being refused.
        settle: agrees with other processes and scales losses; None for one process without a scaler.
    """
    replay = None
    if callable(losses):
        if features is not None:
            message = (
                "backward() got a closure and features= beside it; features belong to one evaluation of the closure. "
                "Return them from it: (losses, features)."
            )
            raise RequestError(message)
        replay = Replay(losses) if again else None
        losses, features = _split(replay.first() if replay else losses())
    elif again:
        message = (
            f"{method} evaluates the losses at other parameters too, and got losses that are already computed. Pass a "
            "function that runs the forward pass and returns them: backward(closure, shared=trunk.parameters())."
        )
        raise RequestError(message)
    setting = None
    if settle is not None:
        losses, setting = settle(losses, _check_all)
    kept, skipped = _checked(losses, skip_bad=skip_bad, setting=setting)
    listed = None if shared is None else list(shared)
    return Batch(kept, listed, _listed(features), skipped, skip_bad, replay, setting, settle)


def leaves_of(tensors: Sequence[Tensor], stops: Sequence[Tensor] = ()) -> list[Tensor]:
    """Parameters that the tensors depend on, those left out that they reach through `stops` alone."""
    ends = {id(tensor) for tensor in stops}
    seen = {tensor.grad_fn for tensor in stops if tensor.grad_fn is not None}
    stack = [tensor.grad_fn for tensor in reversed(tensors)]
    leaves: dict[int, Tensor] = {id(tensor): tensor for tensor in tensors if tensor.is_leaf and tensor.requires_grad}
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None and id(variable) not in ends:
            leaves[id(variable)] = variable
        stack.extend(below for below, _ in reversed(node.next_functions))
    return list(leaves.values())


def _split(found: Any) -> tuple[Losses, Features | None]:
    if isinstance(found, Mapping):
        return found, None
    if isinstance(found, tuple) and len(found) == 2 and isinstance(found[0], Mapping):
        return found[0], found[1]
    message = (
        f"The closure returned {type(found).__name__}; the losses by task were expected, or (losses, features). "
        'Return for example {"price": loss_price, "sold": loss_sold}.'
    )
    raise RequestError(message)


def _listed(features: Features | None) -> list[Tensor] | None:
    return [features] if isinstance(features, Tensor) else None if features is None else list(features)


def _check_all(losses: Any) -> None:
    if not isinstance(losses, Mapping):
        message = (
            f"backward() got {type(losses).__name__}; a scalar loss by task's name was expected, or a function that "
            'returns them. Pass for example {"price": loss_price, "sold": loss_sold}.'
        )
        raise RequestError(message)
    for name, loss in losses.items():
        _check(name, loss)


def _checked(
    losses: Any, *, skip_bad: bool, setting: Setting | None = None
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    if setting is None:
        _check_all(losses)
        if not losses:
            message = "No loss was given. A step needs at least one task with a label; skip a batch that has none."
            raise RequestError(message)
        values = torch.stack([loss.detach().float().reshape(()) for loss in losses.values()])
    else:
        values = setting.losses(tuple(losses))
    finite = torch.isfinite(values).tolist()
    bad = tuple(name for name, good in zip(losses, finite, strict=True) if not good)
    if bad and not skip_bad:
        message = (
            f"Task '{bad[0]}' has a loss of {values[list(losses).index(bad[0])].item()}; a finite number was expected. "
            "Look for bad labels or a learning rate that is too high, or pass skip_bad=True to leave such steps out."
        )
        raise RequestError(message)
    return {name: loss.reshape(()) for name, loss in losses.items() if name not in bad}, bad


def _check(name: str, loss: Tensor) -> None:
    if loss.numel() != 1:
        shape = tuple(loss.shape)
        message = f"Task '{name}' has a loss of shape {shape}; a scalar was expected. Take its mean over rows."
        raise RequestError(message)
    if not loss.requires_grad:
        message = (
            f"Task '{name}' has a loss that depends on no parameter. Compute it from the model's outputs, "
            "outside torch.no_grad()."
        )
        raise RequestError(message)
