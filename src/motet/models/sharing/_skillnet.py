"""SkillNet: each task declares its skills, and only their networks work for it."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from motet._errors import RequestError
from motet.models.blocks import Experts, FixedRoute, Mix
from motet.models.sharing._kinds import kinds_of
from motet.models.sharing._sharing import Sharing


class SkillNet(Sharing):
    """A bank of skills on each level, of which each task uses the ones that it declares; nothing about it is learned.

    For tasks whose common ground is known. x_t + mean over t's skills s of FFN_s(norm(x_t)), level upon level; what no
    asked-for task uses is not computed. With `kinds` skills are modalities: a task reads the tokens whose skill it
    declares, each token passes its own modality's network and those of the task's skills that are no token's, and the
    feature is the mean over the tokens that were read.

    Args:
        num_tasks: T.
        width: F, the size of the features it takes and gives.
        skills: the skills of each task; None means one that all use and one of each task's own.
        kinds: the skill of each token of a row, above `Modalities` for example; None for skills that belong to no
            token.
        num_levels: how many levels.
        expansion: how much wider a skill's middle is than F.

    Raises:
        RequestError: skills that are not one list a task, a task without a skill, a negative number, or a task that
            declares no token's skill; in `forward`, another number of tokens than of kinds.

    Cost: B · T · (skills of a task) · 2 · expansion · F² multiplications a level, and for each token that a task reads.

    Source: Dai et al., One Model, Multiple Modalities: A Sparsely Activated Approach, 2022 (SkillNet), after its
        abstract: sparse activation by declared skills, without a learned route. Departures: the mean over skills is
        recalled, not read; one network a token, with neither attention
        nor tokenisers, which are the encoder's.
    """

    name: ClassVar[str] = "skillnet"

    def __init__(
        self,
        num_tasks: int,
        *,
        width: int,
        skills: Sequence[Sequence[int]] | None = None,
        kinds: Sequence[int] | None = None,
        num_levels: int = 2,
        expansion: float = 1.0,
    ) -> None:
        super().__init__(num_tasks, inputs=width, width=width)
        table = [[0, task + 1] for task in range(num_tasks)] if skills is None else skills
        see = _table(table, num_tasks)
        self.kinds = None if kinds is None else list(kinds)
        self.tokens_meet = kinds is not None
        if self.kinds is not None:
            self.pairs, see = _by_token(see, self.kinds)
        hidden = max(1, round(width * expansion))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(num_levels))
        self.levels = nn.ModuleList(
            Mix(Experts(see.shape[1], width, (hidden, width), activation="gelu", last=False), FixedRoute.mean(see))
            for _ in range(num_levels)
        )

    def streams(self, features: Tensor, tasks: Sequence[int]) -> Tensor:
        """Maps (B, F), or with kinds tokens (B, S, F), to (T, B, F)."""
        if self.kinds is None:
            return self._levels(features, tasks)
        kinds_of(self.kinds, features, self.name)
        wanted = [number for task in tasks for number, (reader, _) in enumerate(self.pairs) if reader == task]
        readers = torch.tensor([self.pairs[number][0] for number in wanted], device=features.device)
        places = [self.pairs[number][1] for number in wanted]
        values = self._levels(features[:, places].transpose(0, 1), wanted)
        mine = (readers == torch.tensor(list(tasks), device=features.device).unsqueeze(1)).to(values.dtype)
        return torch.einsum("tp,pbf->tbf", mine / mine.sum(dim=1, keepdim=True), values)

    def _levels(self, values: Tensor, outputs: Sequence[int]) -> Tensor:
        for norm, level in zip(self.norms, self.levels, strict=True):
            values = values + level(norm(values), outputs)
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


def _by_token(see: Tensor, kinds: list[int]) -> tuple[list[tuple[int, int]], Tensor]:
    """Each task with each token that it reads, and (pairs, skills) which networks that token passes for it."""
    if not kinds or min(kinds) < 0 or max(kinds) >= see.shape[1]:
        message = (
            f"Tokens of the skills {kinds} were given; the tasks' skills are numbered 0 to {see.shape[1] - 1}, and a "
            "row has a token at least. Name one of those for each token."
        )
        raise RequestError(message)
    pairs = [(task, place) for task in range(len(see)) for place, kind in enumerate(kinds) if see[task, kind]]
    blind = sorted(set(range(len(see))) - {task for task, _ in pairs})
    if blind:
        message = (
            f"Task {blind[0]} declares no skill that a token has; it would read nothing. Give it one of the skills "
            f"{sorted(set(kinds))}."
        )
        raise RequestError(message)
    general = see.clone()
    general[:, kinds] = False
    rows = torch.stack([general[task] for task, _ in pairs])
    rows[torch.arange(len(pairs)), [kinds[place] for _, place in pairs]] = True
    return pairs, rows
