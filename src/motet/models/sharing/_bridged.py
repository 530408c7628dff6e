"""Bridged branches: a network for each group of tasks; they read each other across bridges that stop gradients."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from motet.models.blocks import Bridge, Experts
from motet.models.sharing._owners import groups_of
from motet.models.sharing._sharing import Sharing, steps


class Bridged(Sharing):
    """A branch for each group of tasks; between levels each branch reads the others through a bridge.

    For groups that know something of use to each other and whose gradients fight: the bridge lets features over and
    stops gradients, so that a group's losses shape its own branch and what lies before it, and nobody else's. The
    tasks of a group share its features.

    Args:
        num_tasks: T.
        width: F, the size of the features it takes.
        groups: the tasks of each group, each task once; None means two halves in order.
        levels: size of each level's branches.
        stop: whether gradients end at the bridges.

    Raises:
        RequestError: groups that do not hold each task once, or no level.

    Cost: B · G · (Σ in · out of the levels + size² of each bridge) multiplications. One task needs all branches below
        the last level.

    Source: Zhang et al., MTPano: Multi-Task Panoramic Scene Understanding via Label-Free Integration of Dense
        Prediction Priors, 2026, by its abstract: a branch for rotation-invariant tasks and one for rotation-variant
        ones, which interact with gradient truncation. Departures: any number of groups; the form of the interaction is
        ours; what knows of panoramas (ray directions, token mixers) is an encoder's.
    """

    name: ClassVar[str] = "bridged"

    def __init__(
        self,
        num_tasks: int,
        *,
        width: int,
        groups: Sequence[Sequence[int]] | None = None,
        levels: Sequence[int] = (128, 128),
        stop: bool = True,
    ) -> None:
        pairs = steps(width, levels)
        super().__init__(num_tasks, inputs=width, width=levels[-1])
        self.group_of = groups_of(groups, num_tasks)
        self.num_groups = count = max(self.group_of) + 1
        self.branches = nn.ModuleList(Experts(count, inputs, (outputs,)) for inputs, outputs in pairs)
        crossed = levels[:-1] if count > 1 else ()  # one branch alone has nobody to read
        self.bridges = nn.ModuleList(Bridge(count, size, stop=stop) for size in crossed)

    def streams(self, features: Tensor, tasks: Sequence[int]) -> Tensor:
        """Maps (B, F) to (T, B, levels[-1])."""
        groups = sorted({self.group_of[task] for task in tasks})
        values, last = features, len(self.branches) - 1
        for number, branch in enumerate(self.branches):
            values = branch(values, groups if number == last else None)
            if number < len(self.bridges):
                values = self.bridges[number](values, groups if number == last - 1 else None)
        return values[[groups.index(self.group_of[task]) for task in tasks]]
