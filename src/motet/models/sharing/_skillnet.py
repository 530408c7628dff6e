"""SkillNet: each task declares its skills, and only their networks work for it."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from motet._errors import RequestError
from motet.models.blocks import Experts, FixedRoute, Mix
from motet.models.sharing._sharing import Sharing


class SkillNet(Sharing):
    """A bank of skills on each level, of which each task uses the ones that it declares; nothing about it is learned.

    For tasks whose common ground is known. x_t + mean over t's skills s of FFN_s(norm(x_t)), level upon level; what no
    asked-for task uses is not computed.

    Args:
        num_tasks: T.
        width: F, the size of the features it takes and gives.
        skills: the skills of each task; None means one that all use and one of each task's own.
        num_levels: how many levels.
        expansion: how much wider a skill's middle is than F.

    Raises:
        RequestError: skills that are not one list a task, a task without a skill, or a negative number.

    Cost: B · T · (skills of a task) · 2 · expansion · F² multiplications a level.

    Source: Dai et al., One Model, Multiple Modalities: A Sparsely Activated Approach, 2022 (SkillNet), after its
        abstract: sparse activation by declared skills, without a learned route. Departures: the mean over skills is
        recalled, not read; attention and tokenisers are the encoder's.
    """

    name: ClassVar[str] = "skillnet"

    def __init__(
        self,
        num_tasks: int,
        *,
        width: int,
        skills: Sequence[Sequence[int]] | None = None,
        num_levels: int = 2,
        expansion: float = 1.0,
    ) -> None:
        super().__init__(num_tasks, inputs=width, width=width)
        table = [[0, task + 1] for task in range(num_tasks)] if skills is None else skills
        see = _table(table, num_tasks)
        hidden = max(1, round(width * expansion))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(num_levels))
        self.levels = nn.ModuleList(
            Mix(Experts(see.shape[1], width, (hidden, width), activation="gelu", last=False), FixedRoute.mean(see))
            for _ in range(num_levels)
        )

    def streams(self, features: Tensor, tasks: Sequence[int]) -> Tensor:
        """Maps (B, F) to (T, B, F)."""
        values = features
        for norm, level in zip(self.norms, self.levels, strict=True):
            values = values + level(norm(values), tasks)
        return values


def _table(skills: Sequence[Sequence[int]], num_tasks: int) -> Tensor:
    numbers = [skill for task in skills for skill in task]
    if len(skills) != num_tasks or not numbers or min(numbers) < 0:
        message = (
            f"The skills {[list(task) for task in skills]} were given; {num_tasks} tasks need a list of numbers from 0 "
            "each. Give one list a task."
        )
        raise RequestError(message)
    see = torch.zeros(num_tasks, max(numbers) + 1, dtype=torch.bool)
    for row, task in zip(see, skills, strict=True):
        row[list(task)] = True
    return see
