"""A stock of low-rank skills, and a table of how much of each a task takes."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from motet._errors import RequestError
from motet.models.adapters._factors import Factors
from motet.models.adapters._layer import AdapterLayer, Place

_SPREAD = 1e-3  # of the table's first values
_NOTHING = 1e-12


@dataclass(frozen=True)
class SkillSettings:
    """What a stock of skills looks like.

    Args:
        num_skills: S.
        rank: r of each.
        num_heads: Q, blocks of a layer's inputs and outputs with shares of their own.
        noise: whether training draws relaxed yes or no instead of taking sigmoids.
        learns_skills: whether skills are trained, or the table alone.
    """

    num_skills: int
    rank: int
    num_heads: int
    noise: bool
    learns_skills: bool = True


class SkillLayer(AdapterLayer):
    """Skills of one layer and the tasks' shares in them.

    Args:
        place: the layer.
        settings: of the skills.
        table: (T, Q, S) scores that layers share; None makes a table for this layer alone.

    Raises:
        RequestError: no skill, or the layer's sides do not divide into heads.
    """

    def __init__(self, place: Place, settings: SkillSettings, table: nn.Parameter | None = None) -> None:
        super().__init__(place)
        _check(place, settings)
        heads, skills, rank = settings.num_heads, settings.num_skills, settings.rank
        inputs, outputs = place.layer.in_features // heads, place.layer.out_features // heads
        self.noise = settings.noise
        self.rank = rank
        self.down = place.uniform(heads, skills, inputs, rank, bound=inputs**-0.5)
        self.up = place.zeros(heads, skills, rank, outputs)
        self.down.requires_grad_(settings.learns_skills)
        self.up.requires_grad_(settings.learns_skills)
        # Nearly even at the start.
        self.table = place.uniform(place.num_tasks, heads, skills, bound=_SPREAD) if table is None else table

    def shares(self) -> Tensor:
        """How much of each skill each task takes in each head, (T, Q, S); sums to one over skills."""
        scores = self.table
        if self.training and self.noise:
            # A relaxed Bernoulli draw at temperature one: the score is moved by logistic noise.
            draw = torch.rand_like(scores).clamp(_NOTHING, 1.0 - 1e-6)
            scores = scores + draw.log() - (-draw).log1p()
        taken = scores.sigmoid()
        return taken / (taken.sum(dim=-1, keepdim=True) + _NOTHING)

    def factors(self, tasks: slice | Tensor | None) -> list[Factors]:
        """The mixtures of skills that some tasks are."""
        shares = self.shares()[slice(None) if tasks is None else tasks]
        down = torch.einsum("tqs,qsir->tqir", shares, self.down).flatten(1, 2)
        up = torch.einsum("tqs,qsro->trqo", shares, self.up).flatten(2)
        return [Factors(down, up / self.rank)]


def skill_layers(places: Sequence[Place], settings: SkillSettings, *, one_table: bool) -> list[AdapterLayer]:
    """Skills for each place, with a table each or one for all."""
    first = SkillLayer(places[0], settings)
    return [first, *(SkillLayer(place, settings, first.table if one_table else None) for place in places[1:])]


def _check(place: Place, settings: SkillSettings) -> None:
    if settings.num_skills < 1 or settings.num_heads < 1:
        message = (
            f"{settings.num_skills} skills in {settings.num_heads} heads were asked for; there is at least one of "
            "each. Ask for four skills, say."
        )
        raise RequestError(message)
    inputs, outputs = place.layer.in_features, place.layer.out_features
    if inputs % settings.num_heads or outputs % settings.num_heads:
        message = (
            f"Layer '{place.name}' has {inputs} inputs and {outputs} outputs, which do not divide into "
            f"{settings.num_heads} heads. Take a number of heads that divides both, or leave the layer out."
        )
        raise RequestError(message)
    place.check_rank(settings.rank)
