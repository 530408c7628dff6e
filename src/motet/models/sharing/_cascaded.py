"""Cascaded groups: experts for all tasks, above them experts for each group of tasks."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from motet._errors import RequestError
from motet.models.blocks import Experts, Gate, Mix, SoftmaxRoute, TopKRoute
from motet.models.sharing._owners import groups_of
from motet.models.sharing._sharing import Sharing


class CascadedGroups(Sharing):
    """Experts that all tasks share, of which each group sends a row to k; above them experts of each group's own.

    For tasks of a few kinds with much common ground. z_g = Σ over the k largest of softmax(W_g x) of u_e(x), and for
    task t of group g, y_t = Σ over g's experts of softmax(V_t z_g)_e u'_e(z_g). A group meets the others in the lower
    experts alone.

    Args:
        num_tasks: T.
        width: F, the size of the features it takes.
        groups: the tasks of each group, each task once; None means two halves in order.
        num_common: experts that all tasks share.
        k: of these, how many a row is sent to for each group.
        num_group: experts of each group.
        dims: sizes of the two levels.
        auxiliary: scales of regularising losses of the lower level by name; None means {"importance": 0.01}.

    Raises:
        RequestError: groups that do not hold each task once, a k that is no number of experts, or
            sizes of other than two levels.

    Cost: B · (G · k · F · dims[0] + G · num_group · dims[0] · dims[1]) multiplications; one task needs its group's.

    Source: Zhao et al., JiuZhang 2.0: A Unified Chinese Pre-trained Language Model for Multi-task Mathematical Problem
        Solving, KDD 2023, by its abstract: a mixture of experts for all tasks, to which groups of tasks are adapted.
        Departures: the form of both levels is ours; transformer layers and the stages of its training are the
        caller's.
    """

    name: ClassVar[str] = "cascaded"

    def __init__(
        self,
        num_tasks: int,
        *,
        width: int,
        groups: Sequence[Sequence[int]] | None = None,
        num_common: int = 8,
        k: int = 2,
        num_group: int = 2,
        dims: Sequence[int] = (128, 128),
        auxiliary: Mapping[str, float] | None = None,
    ) -> None:
        if len(dims) != 2:
            message = f"Levels of sizes {list(dims)} were given; a cascade has two. Give (128, 128), say."
            raise RequestError(message)
        super().__init__(num_tasks, inputs=width, width=dims[1])
        self.group_of = groups_of(groups, num_tasks)
        count = max(self.group_of) + 1
        owner = [group for group in range(count) for _ in range(num_group)]
        see = torch.tensor(owner).unsqueeze(0) == torch.tensor(self.group_of).unsqueeze(1)
        scales = {"importance": 0.01} if auxiliary is None else auxiliary
        common = TopKRoute(Gate(count, num_common, width), k)
        self.common = Mix(Experts(num_common, width, dims[:1]), common, auxiliary=scales)
        own = SoftmaxRoute(Gate(num_tasks, len(owner), dims[0]), see)
        self.own = Mix(Experts(len(owner), dims[0], dims[1:]), own, source=owner)

    def streams(self, features: Tensor, tasks: Sequence[int]) -> Tensor:
        """Maps (B, F) to (T, B, dims[1])."""
        groups = sorted({self.group_of[task] for task in tasks})
        values = self.common(features, groups)
        context = values[[groups.index(self.group_of[task]) for task in tasks]]
        return self.own(values, tasks, streams=groups, context=context)
