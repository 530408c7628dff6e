"""The loop that all learned merges share."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from motet._errors import RequestError
from motet.merge.learned._merged import Merged

# Gets a function from inputs to the merged model's outputs, an expert's number and its batch; gives a loss.
TaskLoss: TypeAlias = Callable[[Callable[..., Any], int, Any], Tensor]


def entropy(call: Callable[..., Any], expert: int, batch: Any) -> Tensor:  # noqa: ARG001
    """The mean entropy of the predicted classes of a batch of inputs, which needs no labels."""
    logs = torch.log_softmax(call(batch), dim=-1)
    return -(logs.exp() * logs).sum(dim=-1).mean()


def total_loss(merged: Merged, batches: Sequence[Any], loss: TaskLoss) -> Tensor:
    """The sum over experts of the loss of each on its own batch, at one and the same merge.

    Raises:
        RequestError: there is not one batch for each expert.
    """
    if len(batches) != merged.num_experts:
        message = (
            f"{len(batches)} batches arrived for {merged.num_experts} experts; one for each was expected, in the "
            f"experts' "
            "order. Yield a list of that length; None for an expert without rows."
        )
        raise RequestError(message)
    weights = merged.weights()

    def call(*inputs: Any) -> Any:
        return merged.call(weights, *inputs)

    losses = [loss(call, expert, batch) for expert, batch in enumerate(batches) if batch is not None]
    return torch.stack(losses).sum()


def descend(
    merged: Merged,
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
    for batch in itertools.islice(_again(batches), steps):
        found = total_loss(merged, batch, loss)
        if not torch.isfinite(found):
            message = (
                f"The loss is {found.item()} at step {len(history) + 1}; a finite one was expected. Lower the rate."
            )
            raise RequestError(message)
        optimizer.zero_grad()
        found.backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(merged.parameters(), clip)
        optimizer.step()
        history.append(float(found.detach()))
    return history


def _again(batches: Iterable[Sequence[Any]]) -> Iterable[Sequence[Any]]:
    while True:
        empty = True
        for batch in batches:
            empty = False
            yield batch
        if empty:
            message = "The batches have ended; one list of batches for each step was expected. Pass a list or a loader."
            raise RequestError(message)
