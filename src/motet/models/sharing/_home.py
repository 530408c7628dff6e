"""HoME: a hierarchy of shared, group and task experts, with gates on what each of them reads."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from motet.models.blocks import Experts, FeatureGate, Gate, Mix, Route, SigmoidRoute, SoftmaxRoute, SumRoute
from motet.models.sharing._owners import groups_of
from motet.models.sharing._sharing import Sharing


class HoME(Sharing):
    """Two levels of experts, first for groups of tasks, then for tasks, that stay comparable and alive.

    For many tasks that fall into groups, and where PLE's experts die out or are taken over by one task. Experts are
    swish(batch norm(linear)); each set of experts reads the features through a gate of its own; each gate is joined by
    a self gate over the output's own experts, so that rare tasks still train theirs.

    Level 1 gives z_g for each group, from its own and the shared experts, and z_shared from all. Level 2 gives task t
    a mixture of shared, its group's and its own experts, by a gate that reads [z_g ; z_shared].

    Args:
        num_tasks: T.
        width: F, the size of the features it takes.
        groups: the tasks of each group, each task once; None means two halves in order.
        meta: shared experts and experts of each group on level 1.
        num_shared: shared experts on level 2.
        num_group: experts of each group on level 2.
        num_specific: experts of each task on level 2.
        expert_width: size of every expert.
        rank: of each of the two low-rank gates on what a set of experts reads.
        auxiliary: scales of regularising losses by name.

    Raises:
        RequestError: groups that do not hold each task once.

    Cost: the experts, and for each of their sets about 4 · B · F · rank multiplications. One task needs all of level 1
        and, on level 2, its own, its group's and the shared experts.

    Source: Wang et al., HoME: Hierarchy of Multi-Gate Experts for Multi-Task Learning at Kuaishou, 2024, and open
        re-implementations for the numbers of experts. Departures: sizes and rank are ours, for tables; the shared
        output of level 1 has a self gate too; a self gate over one expert is a sigmoid.
    """

    name: ClassVar[str] = "home"

    def __init__(
        self,
        num_tasks: int,
        *,
        width: int,
        groups: Sequence[Sequence[int]] | None = None,
        meta: Sequence[int] = (4, 2),
        num_shared: int = 2,
        num_group: int = 2,
        num_specific: int = 1,
        expert_width: int = 128,
        rank: int = 32,
        auxiliary: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(num_tasks, inputs=width, width=expert_width)
        self.group_of = groups_of(groups, num_tasks)
        self.num_groups = count = max(self.group_of) + 1
        # A set of experts is numbered by whom it serves: groups, then all, then (on level 2) tasks.
        below = [group for group in range(count) for _ in range(meta[1])] + [count] * meta[0]
        above = [group for group in range(count) for _ in range(num_group)] + [count] * num_shared
        above += [count + 1 + task for task in range(num_tasks) for _ in range(num_specific)]
        self.gate_below = FeatureGate(count + 1, width, rank=rank)
        self.gate_above = FeatureGate(count + 1 + num_tasks, expert_width, rank=rank)
        own = _own(below, range(count + 1))
        seen = own | _own(below, [count] * (count + 1))
        seen[count] = True
        self.below = Mix(
            _experts(len(below), width, expert_width), _route(width, seen, own), source=below, auxiliary=auxiliary
        )
        own = _own(above, range(count + 1, count + 1 + num_tasks))
        seen = own | _own(above, self.group_of) | _own(above, [count] * num_tasks)
        self.above = Mix(
            _experts(len(above), expert_width, expert_width), _route(2 * expert_width, seen, own), source=above,
            auxiliary=auxiliary,
        )  # fmt: skip

    def streams(self, features: Tensor, tasks: Sequence[int]) -> Tensor:
        """Maps (B, F) to (T, B, expert_width)."""
        groups = sorted({self.group_of[task] for task in tasks})
        shared = self.num_groups
        meta = self.below(self.gate_below(features), [*groups, shared], context=features)
        places = [groups.index(self.group_of[task]) for task in tasks]
        # Level 2 reads the groups' and the shared output for their experts, and each task's group for its own.
        streams = [*groups, shared, *(shared + 1 + task for task in tasks)]
        gated = self.gate_above(torch.cat([meta, meta[places]]), streams)
        context = torch.cat([meta[places], meta[-1:].expand(len(tasks), -1, -1)], dim=-1)
        return self.above(gated, tasks, streams=streams, context=context)


def _experts(num_experts: int, inputs: int, width: int) -> Experts:
    return Experts(num_experts, inputs, (width,), norm="batch", activation="silu")


def _route(inputs: int, seen: Tensor, own: Tensor) -> Route:
    """A gate over what may be seen, plus a self gate over what is an output's own."""
    num_outputs, num_experts = seen.shape
    gates = [Gate(num_outputs, num_experts, inputs) for _ in range(2)]
    alone = bool((own.sum(dim=1) == 1).all())
    self_gate: Route = SigmoidRoute(gates[1], own, normalise=False) if alone else SoftmaxRoute(gates[1], own)
    return SumRoute(SoftmaxRoute(gates[0], seen), self_gate)


def _own(sets: list[int], wanted: Sequence[int]) -> Tensor:
    """(O, E) which experts belong to the wanted set of each output."""
    return torch.tensor(sets).unsqueeze(0) == torch.tensor(list(wanted)).unsqueeze(1)
