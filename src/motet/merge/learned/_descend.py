"""The loop that all learned merges share."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from motet._errors import RequestError

# Gets a function from inputs to the merged model's outputs, an expert's number and its batch; gives a loss.
TaskLoss: TypeAlias = Callable[[Callable[..., Any], int, Any], Tensor]


class Learner(Protocol):
    """What the loop needs of a merge that learns: weights that are made once a step, and a model to call with them."""

    @property
    def num_experts(self) -> int:
        """How many experts there are."""
        ...

    def weights(self) -> dict[str, Tensor]:
        """What is merged once for all tasks of a step."""
        ...

    def call(self, weights: Mapping[str, Tensor], *inputs: Any) -> Any:
        """The model's outputs at these weights."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """What learns."""
        ...


def entropy(call: Callable[..., Any], expert: int, batch: Any) -> Tensor:  # noqa: ARG001
    """The mean entropy of the predicted classes of a batch of inputs, which needs no labels."""
    logs = torch.log_softmax(call(batch), dim=-1)
    return -(logs.exp() * logs).sum(dim=-1).mean()


def total_loss(merged: Learner, batches: Sequence[Any], loss: TaskLoss) -> Tensor:
    """The sum over experts of the loss of each on its own batch, at one and the same merge.

    Raises:
        RequestError: there is not one batch for each expert.
    """
    call = partial(merged.call, merged.weights())
    return torch.stack([loss(call, expert, batch) for expert, batch in _present(merged, batches)]).sum()


def backward(merged: Learner, weights: Mapping[str, Tensor], batches: Sequence[Any], loss: TaskLoss) -> float:
    """Adds the gradient of the total loss at weights that are merged already, and returns the loss.

    Every task's gradient stops at the weights, and their sum passes through the merge once; only one task's
    activations are held at a time.

    Raises:
        RequestError: there is not one batch for each expert, or a loss is not finite.
    """
    leaves = {name: part.detach().requires_grad_(part.requires_grad) for name, part in weights.items()}
    call = partial(merged.call, leaves)
    total = 0.0
    for expert, batch in _present(merged, batches):
        found = loss(call, expert, batch)
        if not torch.isfinite(found):
            message = f"The loss of expert {expert + 1} is {found.item()}; a finite one was expected. Lower the rate."
            raise RequestError(message)
        found.backward()
        total += found.item()
    moved = [name for name, leaf in leaves.items() if leaf.grad is not None]
    if moved:
        torch.autograd.backward([weights[name] for name in moved], [leaves[name].grad for name in moved])
    return total


def _present(merged: Learner, batches: Sequence[Any]) -> list[tuple[int, Any]]:
    """The experts that have rows in this step, with their batches."""
    if len(batches) != merged.num_experts:
        message = (
            f"{len(batches)} batches arrived for {merged.num_experts} experts; one for each was expected, in the "
            "experts' order. Yield a list of that length; None for an expert without rows."
        )
        raise RequestError(message)
    return [(expert, batch) for expert, batch in enumerate(batches) if batch is not None]


def descend(
    merged: Learner,
    batches: Iterable[Sequence[Any]],
    loss: TaskLoss,
    optimizer: torch.optim.Optimizer,
    *,
    steps: int,
    clip: float | None = None,
) -> list[float]:
    """Takes `steps` steps over the batches, from the first again when they end, and returns the losses.

    Raises:
        RequestError: there are no batches, or a loss is not finite.
    """
    history: list[float] = []
    for batch in itertools.islice(again(batches), steps):
        optimizer.zero_grad()
        history.append(backward(merged, merged.weights(), batch, loss))
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(merged.parameters(), clip)
        optimizer.step()
    return history


def again(batches: Iterable[Sequence[Any]]) -> Iterator[Sequence[Any]]:
    """The batches, from the first again when they end.

    Raises:
        RequestError: there are none.
    """
    while True:
        empty = True
        for batch in batches:
            empty = False
            yield batch
        if empty:
            message = "The batches have ended; one list of batches for each step was expected. Pass a list or a loader."
            raise RequestError(message)
