"""What a sharing module is: shared features to one feature for each task."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar, Literal

from torch import Tensor, nn

from motet._errors import RequestError
from motet.models.blocks import Mix


class Sharing(nn.Module, ABC):
    """Maps shared features (B, F) to one feature for each task, (T, B, F'), computing only what asked-for tasks read.

    Tokens (B, S, F) pass as rows of their own, and a task's feature is the mean over its tokens; where tokens see each
    other they pass whole, and a row is a single token.

    Args:
        num_tasks: T.
        inputs: F, the size of the features it takes.
        width: F', the size of the features it gives.

    Attributes:
        reads: what it is made for: `features` of a row as a whole, or a row's `tokens`.
        extends: whether routes are all that its tasks have of their own, so that tasks and experts can be added later.
        auxiliary: regularising losses of the last forward pass in training, scaled, by name.

    Raises:
        RequestError: no task; in `forward`, features of another shape, or a task that there is not.
    """

    name: ClassVar[str]
    reads: ClassVar[Literal["features", "tokens"]] = "features"
    extends: ClassVar[bool] = False

    def __init__(self, num_tasks: int, *, inputs: int, width: int) -> None:
        super().__init__()
        if num_tasks < 1 or inputs < 1:
            message = (
                f"{num_tasks} tasks and features of size {inputs} were given; both are at least 1. Give the sizes."
            )
            raise RequestError(message)
        self.num_tasks = num_tasks
        self.inputs = inputs
        self.width = width
        self.tokens_meet = self.reads == "tokens"  # whether they pass whole

    @abstractmethod
    def streams(self, features: Tensor, tasks: Sequence[int]) -> Tensor:
        """Maps rows (B, F), or tokens (B, S, F) where they meet, to (T, B, F'), one for each of `tasks`."""

    @property
    def rehearsed(self) -> list[tuple[list[int], Tensor]]:
        """Tasks and their features (T, B, F') under other configurations of the last pass, whose losses count too."""
        return []

    @property
    def auxiliary(self) -> dict[str, Tensor]:
        """The regularising losses of the last forward pass, by name; empty in evaluation."""
        found: dict[str, Tensor] = {}
        for mix in self._mixes():
            for name, loss in mix.auxiliary.items():
                found[name] = found[name] + loss if name in found else loss
        return found

    def forward(self, features: Tensor, tasks: Sequence[int] | None = None) -> Tensor:
        """Maps shared features (B, F) or tokens (B, S, F) to one feature for each asked-for task, (T, B, F')."""
        wanted = self._checked(features, tasks)
        for mix in self._mixes():
            mix.auxiliary = {}
        if self.tokens_meet:
            return self.streams(features.unsqueeze(1) if features.ndim == 2 else features, wanted)
        if features.ndim == 2:
            return self.streams(features, wanted)
        return self.streams(features.flatten(0, 1), wanted).unflatten(1, features.shape[:2]).mean(dim=2)

    def _mixes(self) -> list[Mix]:
        return [module for module in self.modules() if isinstance(module, Mix)]

    def _checked(self, features: Tensor, tasks: Sequence[int] | None) -> list[int]:
        if features.ndim not in {2, 3} or features.shape[-1] != self.inputs:
            message = (
                f"Features of shape {tuple(features.shape)} arrived; {type(self).__name__} was built for "
                f"(B, {self.inputs}) or (B, S, {self.inputs}). Build it with width={features.shape[-1]}, or change "
                "the encoder."
            )
            raise RequestError(message)
        wanted = list(range(self.num_tasks)) if tasks is None else list(tasks)
        unknown = [task for task in wanted if not 0 <= task < self.num_tasks]
        if unknown or not wanted:
            message = (
                f"Tasks {wanted} were asked for; there are {self.num_tasks}, numbered from 0. Ask for one of those."
            )
            raise RequestError(message)
        return wanted


def steps(width: int, levels: Sequence[int]) -> list[tuple[int, int]]:
    """The sizes that each level takes and gives.

    Raises:
        RequestError: no level, or one of size zero.
    """
    sizes = [width, *levels]
    if not levels or min(sizes) < 1:
        message = f"Levels of sizes {list(levels)} were given; one level or more is needed. Give (128, 128), say."
        raise RequestError(message)
    return list(pairwise(sizes))
