"""One task's gradient at the shared parameters and at its own, for wrappers that look at tasks one by one."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from motet._errors import RequestError
from motet.balance.engine._apply import add_grad
from motet.balance.engine._batch import Batch, leaves_of

Grads = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class TaskGradient:
    """Parameters with their gradients.

    Args:
        shared: every shared parameter, in their order.
        own: the other parameters that the loss depends on.
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
        RequestError: none were given, or complex ones; there are several processes, or losses are scaled.
    """
    batch.alone(method)
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
    return shared


def task_gradient(batch: Batch, task: str, shared: Sequence[Tensor]) -> TaskGradient:
    """The gradient of one task's loss; the graph is kept.

    Raises:
        RequestError: the loss does not depend on the shared parameters.
    """
    loss, places = batch.losses[task], {id(parameter) for parameter in shared}
    own = [leaf for leaf in leaves_of([loss]) if id(leaf) not in places]
    found = torch.autograd.grad(loss, [*shared, *own], retain_graph=True, allow_unused=True)
    if all(grad is None for grad in found[: len(shared)]):
        message = (
            f"Task '{task}' has a loss that does not depend on the shared parameters. Leave it out of this call and "
            "add its own backward, or check which parameters are passed as shared."
        )
        raise RequestError(message)
    grads = [
        torch.zeros_like(leaf) if grad is None else grad.to_dense() if grad.is_sparse else grad
        for leaf, grad in zip([*shared, *own], found, strict=True)
    ]
    pairs = list(zip([*shared, *own], grads, strict=True))
    return TaskGradient(pairs[: len(shared)], pairs[len(shared) :])


def gradient_around(batch: Batch, task: str, shared: Sequence[Tensor]) -> TaskGradient | None:
    """One task's gradient with the parameters as they now are; None where its loss is not finite there.

    Args:
        batch: as evaluated at the start; it is evaluated again.
        task: whose gradient.
        shared: the shared parameters.
    """
    around = batch.only([task]).again()
    return task_gradient(around, task, shared) if around.losses else None


def fill_shared(shared: Sequence[Tensor], direction: Tensor) -> None:
    """Adds a direction (P,) to the shared parameters' `.grad`."""
    parts = direction.split([parameter.numel() for parameter in shared])
    for parameter, part in zip(shared, parts, strict=True):
        add_grad(parameter, part.reshape(parameter.shape))


def fill_own(grads: Sequence[TaskGradient], heads: Tensor | None) -> None:
    """Adds to the tasks' own parameters their gradients, under weights (T,) where a tensor is given."""
    factors = [1.0] * len(grads) if heads is None else heads.tolist()
    for grad, factor in zip(grads, factors, strict=True):
        for leaf, value in grad.own:
            add_grad(leaf, value * factor)
