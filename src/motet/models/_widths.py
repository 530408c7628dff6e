"""The widths of a model that has many: what each loses in validation, and which were chosen."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from motet._errors import RequestError
from motet.models.sharing import ECMT

if TYPE_CHECKING:
    from motet.models._multitask import MultiTaskModel

Batch = tuple[Any, Mapping[str, Tensor], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Widths:
    """At which fraction of its full width each part of a model runs.

    Args:
        shared: fraction of the trunk.
        tasks: fraction of each task's decoder, by name.
        cost: multiplications of trunk and decoders, as a share of those at full width.
    """

    shared: float
    tasks: dict[str, float]
    cost: float

    @classmethod
    def of(cls, sharing: ECMT, widths: Sequence[int] | None, names: Sequence[str]) -> "Widths":
        """The widths by number, None for the full width, as fractions."""
        if widths is None:
            return cls(1.0, dict.fromkeys(names, 1.0), 1.0)
        parts = [sharing.fractions[width] for width in widths]
        costs = sharing.costs
        return cls(parts[0], dict(zip(names, parts[1:], strict=True)), costs.of(widths) / costs.range[1])


def measure_widths(model: "MultiTaskModel", batches: Iterable[Batch]) -> Tensor:
    """Measures what each width costs each task in validation, so that `model.configure` can choose among them.

    A task's loss depends on the trunk's width and its own decoder's alone: W² passes tell it for all W^(1 + T) choices.
    The result is kept in the model's state.

    Args:
        model: with `ECMT` for its sharing module, trained.
        batches: validation rows, each batch (inputs, targets by task, present by task).

    Returns:
        (W, W, T) how much larger the mean loss is than at full width, as a share of that: by the trunk's width, the
        decoder's, and the task.

    Raises:
        RequestError: another sharing module, or a task without a label in all batches.

    Cost: W² forward passes above the encoder for each batch, and one through it.
    """
    sharing = model.sharing
    if not isinstance(sharing, ECMT):
        message = (
            f"The widths of a model with the sharing module {type(sharing).__name__} were to be measured; it has one. "
            "Build it with motet.models.sharing.ECMT."
        )
        raise RequestError(message)
    training, active = model.training, sharing.active
    model.eval()
    try:
        losses_WWT = _mean_losses(model, sharing, batches)
    finally:
        sharing.active = active
        model.train(training)
    full = losses_WWT[-1, -1]
    sharing.harm.copy_((losses_WWT - full) / full.abs().clamp(min=1e-12))
    return sharing.harm.clone()


@torch.no_grad()
def _mean_losses(model: "MultiTaskModel", sharing: ECMT, batches: Iterable[Batch]) -> Tensor:
    totals = torch.zeros_like(sharing.harm, dtype=torch.float64)
    counts = totals.new_zeros(len(model.tasks))
    for inputs, targets, present in batches:
        features = model.features(inputs)
        labelled = [name in targets and bool(present[name].any()) for name in model.tasks]
        rows = [int(present[name].sum()) if there else 0 for name, there in zip(model.tasks, labelled, strict=True)]
        counts += counts.new_tensor(rows)
        for shared, own in product(range(len(sharing.fractions)), repeat=2):
            sharing.active = [shared] + [own] * len(model.tasks)
            found = model.outputs(features)
            for number, (name, outputs) in enumerate(found.items()):
                if labelled[number]:
                    loss = model.tasks[name].masked_loss(outputs, targets[name], present[name])
                    totals[shared, own, number] += rows[number] * loss
    without = [name for name, count in zip(model.tasks, counts.tolist(), strict=True) if not count]
    if without:
        message = (
            f"Task '{without[0]}' has no label in the validation batches; what a width costs it cannot be measured. "
            "Give batches in which each task has some."
        )
        raise RequestError(message)
    return totals / counts
