"""The model: encoder, sharing and heads joined."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from motet._errors import RequestError, suggest
from motet.models._heads import Heads
from motet.models._widths import Widths
from motet.models.sharing import ECMT
from motet.tasks import Task


class MultiTaskModel(nn.Module):
    """One model for several tasks: `encoder` makes features, `sharing` gives each task its own, `Heads` answer.

    Args:
        encoder: inputs to features (B, F).
        sharing: features (B, F) to (T, B, F'), with F' as its `width`; called with the numbers of the asked-for tasks.
        tasks: fitted tasks with names that differ.
        head_width: size of each head's hidden layer.

    Raises:
        RequestError: two tasks of one name, or in `forward` a task that the model does not have.

    Example:
        >>> import torch
        >>> from motet.models import HardSharing, MultiTaskModel
        >>> from motet.tasks import Binary
        >>> tasks = [Binary("a", classes=(False, True)), Binary("b", classes=(False, True))]
        >>> model = MultiTaskModel(torch.nn.Linear(3, 8), HardSharing(2, width=8), tasks)
        >>> {name: tuple(outputs.shape) for name, outputs in model(torch.zeros(5, 3), tasks=["b"]).items()}
        {'b': (5, 1)}
    """

    def __init__(self, encoder: nn.Module, sharing: nn.Module, tasks: Sequence[Task], *, head_width: int = 64) -> None:
        super().__init__()
        names = [task.name for task in tasks]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated or not names:
            found = f"Task '{repeated[0]}' is given twice" if repeated else "No task was given"
            message = f"{found}. A model needs at least one task, each with a name of its own. Rename or drop one."
            raise RequestError(message)
        self.encoder = encoder
        self.sharing = sharing
        self.tasks = {task.name: task for task in tasks}
        self.heads = Heads(tasks, width=_width(sharing), hidden=head_width)

    def features(self, inputs: Any) -> Tensor:
        """The shared features (B, F): where task gradients meet."""
        return self.encoder(inputs)

    def outputs(self, features: Tensor, tasks: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Each task's raw outputs (B, num_outputs) from shared features (B, F)."""
        names = list(self.tasks) if tasks is None else list(tasks)
        numbers = None if tasks is None else [self._number(name) for name in names]
        return dict(zip(names, self.heads(self.sharing(features, numbers), numbers), strict=True))

    def forward(self, inputs: Any, tasks: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Each task's raw outputs by name; with `tasks`, only those, and only their part is computed."""
        return self.outputs(self.features(inputs), tasks)

    def losses(
        self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor], present: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """The mean loss of each task that has a label in the batch; a task without one is left out.

        A task's loss is the mean over the configurations that the sharing module ran in the last forward pass: one, or
        in training several widths. What it asks for besides, its auxiliary losses, is spread evenly over these tasks:
        no method takes a regulariser for a task, and equal weights give the plain sum.
        """
        runs = [outputs, *self._rehearsed()]
        found = {
            name: _mean([self.tasks[name].masked_loss(run[name], targets[name], present[name]) for run in runs])
            for name in outputs
            if name in targets and bool(present[name].any())
        }
        auxiliary = list(getattr(self.sharing, "auxiliary", {}).values())
        if not auxiliary or not found:
            return found
        share = torch.stack(auxiliary).sum() / len(found)
        return {name: loss + share for name, loss in found.items()}

    def configure(self, *, budget: float | None = None, preference: Mapping[str, float] | None = None) -> Widths:
        """Sets at which width each part runs from now on, without training: for a sharing module of many widths.

        Args:
            budget: share of the full cost of what has widths, in multiplications; None for no limit.
            preference: how much a task counts, by name; one that is not named counts 1. With neither of the two, all
                runs at its full width.

        Returns:
            What was chosen.

        Raises:
            RequestError: no sharing module of many widths, an unknown task, widths that `measure_widths` has not
                measured yet, or a budget that is too small.
        """
        sharing = self.sharing
        if not isinstance(sharing, ECMT):
            message = (
                f"A model with the sharing module {type(sharing).__name__} was to be configured; it has one width. "
                "Build it with motet.models.sharing.ECMT."
            )
            raise RequestError(message)
        counts = None
        if preference is not None:
            asked = {self._number(name): float(count) for name, count in preference.items()}
            counts = [asked.get(number, 1.0) for number in range(len(self.tasks))]
        return Widths.of(sharing, sharing.configure(budget=budget, preference=counts), list(self.tasks))

    def _rehearsed(self) -> list[dict[str, Tensor]]:
        names, kind = list(self.tasks), self.heads.weight_in.dtype
        return [
            {names[number]: value for number, value in zip(numbers, self.heads(found.to(kind), numbers), strict=True)}
            for numbers, found in getattr(self.sharing, "rehearsed", [])
        ]

    def _number(self, name: str) -> int:
        if name not in self.tasks:
            message = f"The model has no task '{name}'.{suggest(name, self.tasks)}"
            raise RequestError(message)
        return list(self.tasks).index(name)


def _mean(losses: list[Tensor]) -> Tensor:
    return losses[0] if len(losses) == 1 else torch.stack(losses).mean()


def _width(sharing: nn.Module) -> int:
    width = getattr(sharing, "width", None)
    if not isinstance(width, int):
        message = f"{type(sharing).__name__} has no attribute 'width'; a sharing module says the size of its features."
        raise RequestError(message)
    return width
