"""One task's gradient at the shared parameters and at its own, for wrappers that look at tasks one by one."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from motet._errors import RequestError
from motet.balance.engine._apply import add_grad, spoil
from motet.balance.engine._batch import Batch
from motet.balance.engine._ranks import whole
from motet.balance.engine._update import Step

Grads = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class TaskGradient:
    """Parameters with their gradients.

    Args:
        shared: every shared parameter, in their order.
        own: the other parameters that the loss depends on, on any process.
    """

    shared: Grads
    own: Grads

    @property
    def row(self) -> Tensor:
        """The gradient (P,) at the shared parameters, float32 at least."""
        flat = torch.cat([grad.flatten() for _, grad in self.shared])
        return flat.float() if flat.dtype in {torch.bfloat16, torch.float16} else flat


def shared_parameters(batch: Batch, method: str) -> list[Tensor]:
    """The shared parameters that learn.

    Raises:
        RequestError: none were given, or complex ones, or such as the ranks do not know.
    """
    if batch.shared is None:
        message = (
            f"{method} compares the tasks' gradients at the shared parameters and was told of none. Pass "
            "shared=trunk.parameters()."
        )
        raise RequestError(message)
    shared = [parameter for parameter in batch.shared if parameter.requires_grad]
    if not shared or any(parameter.is_complex() for parameter in shared):
        found = "complex parameters" if shared else "no parameter that requires a gradient"
        message = f"{method} got {found} in shared=; real ones that learn were expected. Pass others, or unfreeze some."
        raise RequestError(message)
    if batch.ranks is not None and {id(parameter) for parameter in shared} - {id(p) for p in whole(batch.ranks)}:
        message = (
            f"{method} got parameters in shared= that are not among those of Ranks; all that is trained was expected. "
            "Pass Ranks(model.parameters())."
        )
        raise RequestError(message)
    return shared


def task_gradient(batch: Batch, task: str, shared: Sequence[Tensor]) -> TaskGradient:
    """The whole batch's gradient of one task's loss, unscaled; the graph is kept.

    Raises:
        RequestError: the loss does not depend on the shared parameters.
        OverflowedError: the scaled gradient is not finite.
    """
    places, reached = {id(parameter) for parameter in shared}, batch.reached([task])
    own = [leaf for leaf in reached if id(leaf) not in places]
    if len(own) == len(reached):
        message = (
            f"Task '{task}' has a loss that does not depend on the shared parameters. Leave it out of this call and "
            "add its own backward, or check which parameters are passed as shared."
        )
        raise RequestError(message)
    pairs = gradients(batch, batch.losses[task], [*shared, *own])
    return TaskGradient(pairs[: len(shared)], pairs[len(shared) :])


def gradients(batch: Batch, loss: Tensor, leaves: Sequence[Tensor]) -> Grads:
    """Parameters, the same on all processes, with the whole batch's dense gradients of a loss, unscaled.

    Raises:
        OverflowedError: scaled gradients are not finite.
    """
    found = torch.autograd.grad(loss, leaves, retain_graph=True, allow_unused=True)
    grads = [
        (leaf, torch.zeros_like(leaf) if grad is None else grad.to_dense() if grad.is_sparse else grad)
        for leaf, grad in zip(leaves, found, strict=True)
    ]
    return grads if batch.setting is None else list(batch.setting.gradients(grads))


def gradient_around(batch: Batch, task: str, shared: Sequence[Tensor]) -> TaskGradient | None:
    """One task's gradient with the parameters as they now are; None where its loss is not finite there.

    Args:
        batch: as evaluated at the start; it is evaluated again.
        task: whose gradient.
        shared: the shared parameters.
    """
    around = batch.only([task]).again()
    return task_gradient(around, task, shared) if around.losses else None


def fill(
    batch: Batch, shared: Sequence[Tensor], direction: Tensor, grads: Sequence[TaskGradient], heads: Tensor | None
) -> None:
    """Adds to `.grad`, as a scaler expects it where there is one.

    Args:
        batch: tells the scale.
        shared: the shared parameters.
        direction: (P,) what they get.
        grads: what the tasks' own parameters get.
        heads: weights (T,) of these; None for the gradients as they are.
    """
    scale = 1.0 if batch.scale is None else batch.scale
    factors = [scale] * len(grads) if heads is None else [scale * float(weight) for weight in heads]
    for grad, factor in zip(grads, factors, strict=True):
        for leaf, value in grad.own:
            add_grad(leaf, value * factor)
    parts = direction.split([parameter.numel() for parameter in shared])
    for parameter, part in zip(shared, parts, strict=True):
        part = part.reshape(parameter.shape)
        add_grad(parameter, part if batch.scale is None else part * scale)


def overflowed(batch: Batch) -> Step:
    """What a step comes to whose scaled gradients are not finite: the scaler skips it."""
    spoil(batch.losses, batch.setting)
    return Step({}, (*batch.skipped, *batch.losses))
