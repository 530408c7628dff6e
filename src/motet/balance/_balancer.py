"""What a balancing method is: K losses to one update."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from motet._errors import RequestError
from motet.balance._claims import Golden
from motet.balance._conflict import cosines
from motet.balance._view import View


@dataclass(frozen=True)
class Update:
    """What a method decides.

    Args:
        weights: (T,) the shared gradient is the sum of the tasks' gradients under these weights.
        direction: (P,) the shared gradient itself, in the place of weights.
        heads: whether the tasks' own parameters get the gradient of the weighted loss, or of each task's own.
    """

    weights: Tensor | None = None
    direction: Tensor | None = None
    heads: bool = False


@dataclass(frozen=True)
class Step:
    """What one balanced backward did.

    Args:
        weights: the weight that each task's loss got; empty where the method works by coordinates.
        skipped: tasks whose loss was not finite and that were left out of this step.
        gramian: inner products (T, T) of the tasks' gradients, if they were formed.
        tasks: the tasks of the Gramian's rows.
    """

    weights: dict[str, float]
    skipped: tuple[str, ...] = ()
    gramian: Tensor | None = None
    tasks: tuple[str, ...] = ()

    @property
    def conflicts(self) -> list[tuple[str, str, float]]:
        """Pairs of tasks whose gradients point apart, with their cosine, the worst first."""
        if self.gramian is None:
            return []
        matrix = cosines(self.gramian)
        pairs = [(self.tasks[i], self.tasks[j], float(matrix[i, j])) for i in range(len(self.tasks)) for j in range(i)]
        return sorted((pair for pair in pairs if pair[2] < 0), key=lambda pair: pair[2])


class Balancer(nn.Module, ABC):
    """A method that turns the losses of several tasks into one update.

    Every method builds without arguments. State worth saving is parameters or buffers keyed by task name, so that a
    `state_dict` resumes exactly and a batch without a task is legal.

    Args:
        skip_bad: leave a task with a NaN or infinite loss out of the step instead of raising.
    """

    name: ClassVar[str]
    place: ClassVar[Literal["features", "parameters"]] = "features"  # where a training loop compares gradients
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
        losses: Mapping[str, Tensor],
        *,
        shared: Iterable[Tensor] | None = None,
        features: Tensor | Sequence[Tensor] | None = None,
    ) -> Step:
        """Fills `.grad` of everything that the losses depend on; what is there already is added to.

        Args:
            losses: a scalar for each task that the batch has labels for.
            shared: parameters at which gradients are compared and combined; a method of losses alone needs none.
            features: shared features, one tensor or several, at which gradients are compared instead: one pass through
                the trunk, whatever the number of tasks.

        Raises:
            RequestError: no loss, a loss that is not a scalar, not finite, without a gradient, or that does not depend
                on the shared parameters; a method of gradients without `shared` or `features`.

        Cost: as the method says.
        """
        kept, skipped = self._checked(losses)
        if not kept:
            return Step({}, skipped)
        parts = [features] if isinstance(features, Tensor) else None if features is None else list(features)
        view = View(kept, None if shared is None else list(shared), parts, method=type(self).__name__)
        update = self.update(view)
        _apply(view, update)
        weights = {} if update.weights is None else dict(zip(view.names, update.weights.tolist(), strict=True))
        return Step(weights, skipped, view.__dict__.get("gramian"), view.names)

    def _checked(self, losses: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
        if not losses:
            message = "No loss was given. A step needs at least one task with a label; skip a batch that has none."
            raise RequestError(message)
        for name, loss in losses.items():
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
        finite = torch.isfinite(torch.stack([loss.detach().float().reshape(()) for loss in losses.values()])).tolist()
        bad = tuple(name for name, good in zip(losses, finite, strict=True) if not good)
        if bad and not self.skip_bad:
            message = (
                f"Task '{bad[0]}' has a loss of {losses[bad[0]].item()}; a finite number was expected. Look for bad "
                "labels or a learning rate that is too high, or pass skip_bad=True to leave such steps out."
            )
            raise RequestError(message)
        return {name: loss.reshape(()) for name, loss in losses.items() if name not in bad}, bad


def _apply(view: View, update: Update) -> None:
    """Fills `.grad` as the update says, with what the view has already computed."""
    stacked = torch.stack(list(view.by_name.values()))
    if update.heads and update.weights is not None:
        (stacked * update.weights.to(stacked)).sum().backward()
    elif view.features is not None:
        _apply_at_features(view, update)
    else:
        _apply_at_parameters(view, update, stacked)


def _apply_at_features(view: View, update: Update) -> None:
    features = list(view.features or [])
    if update.weights is not None:
        grads = [torch.tensordot(update.weights.to(part), part, dims=1) for part in view.saliency]
    else:
        sizes = [tensor.numel() for tensor in features]
        flat = _needed(update.direction).split(sizes)
        grads = [part.reshape(tensor.shape).to(tensor.dtype) for part, tensor in zip(flat, features, strict=True)]
    for leaf, grad in view.own_grads:
        _add_grad(leaf, grad)
    torch.autograd.backward(features, grads)


def _apply_at_parameters(view: View, update: Update, stacked: Tensor) -> None:
    passes = view.passes
    if update.weights is not None:
        found = passes.combine(update.weights)
    else:
        sizes = [parameter.numel() for parameter in passes.shared.values()]
        parts = _needed(update.direction).split(sizes)
        found = dict(zip(passes.shared, parts, strict=True))
    rest = [leaf for leaf in passes.others if id(leaf) not in passes.own_grads]
    if rest:
        for leaf, grad in zip(rest, torch.autograd.grad(stacked.sum(), rest, allow_unused=True), strict=True):
            if grad is not None:
                _add_grad(leaf, grad)
    for leaf in passes.others:
        if id(leaf) in passes.own_grads:
            _add_grad(leaf, passes.own_grads[id(leaf)])
    for key, grad in found.items():
        parameter = passes.shared[key]
        _add_grad(parameter, grad.reshape(parameter.shape))


def _needed(direction: Tensor | None) -> Tensor:
    if direction is None:
        message = "An update needs weights or a direction; this method gave neither."
        raise RequestError(message)
    return direction


def _add_grad(parameter: Tensor, grad: Tensor) -> None:
    grad = grad.detach().to(parameter.dtype)
    parameter.grad = grad.clone() if parameter.grad is None else parameter.grad + grad
