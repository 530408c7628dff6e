"""Nested experts: sparse between groups, dense within."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor

from motet.models.blocks import Experts, Gate, Mix, NestedRoute, TopKRoute
from motet.models.sharing._sharing import Sharing


class NestedExperts(Sharing):
    """Groups of experts: each row goes to a few groups for each task, and within a group every expert counts.

    For rows of several kinds that need several abilities each: groups part the kinds, experts the abilities.

    Args:
        num_tasks: T.
        width: F, the size of the features it takes.
        num_groups: G.
        group_size: experts of each group.
        k: groups that a row is sent to.
        dims: sizes of an expert's layers.
        auxiliary: scales of regularising losses by name; None means {"importance": 0.01}.

    Cost: one task: B · k · group_size · Σ in · out multiplications; all tasks: those, or all experts once.

    Source: Quan, DMoERM: Recipes of Mixture-of-Experts for Effective Reward Modeling, 2024, outer sparse and inner
        dense. Departures: both routes are learned with the rest, where the paper routes by known category and trains
        in phases; weights are not renormalised, so that a single group still gets a gradient.
    """

    name: ClassVar[str] = "nested"

    def __init__(
        self,
        num_tasks: int,
        *,
        width: int,
        num_groups: int = 4,
        group_size: int = 2,
        k: int = 1,
        dims: Sequence[int] = (128,),
        auxiliary: Mapping[str, float] | None = None,
    ) -> None:
        experts = Experts(num_groups * group_size, width, dims)
        super().__init__(num_tasks, inputs=width, width=experts.width)
        outer = TopKRoute(Gate(num_tasks, num_groups, width), k)
        route = NestedRoute(outer, Gate(num_tasks, experts.num_experts, width))
        self.mix = Mix(experts, route, auxiliary={"importance": 0.01} if auxiliary is None else auxiliary)

    def streams(self, features: Tensor, tasks: Sequence[int]) -> Tensor:
        """Maps (B, F) to (T, B, dims[-1])."""
        return self.mix(features, tasks)
