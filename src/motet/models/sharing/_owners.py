"""Who owns which expert: each task some, and all tasks together some; and which tasks form a group."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from motet._errors import RequestError
from motet.models.blocks import Experts, Levels, Mix, Route
from motet.models.sharing._sharing import steps


def owners(num_tasks: int, num_specific: int, num_shared: int) -> list[int]:
    """The owner of each expert: task 0's first, and last the shared ones, whose owner is T.

    Raises:
        RequestError: there would be no expert that a task may read.
    """
    if min(num_specific, num_shared) < 0 or num_specific + num_shared < 1:
        message = (
            f"{num_specific} experts a task and {num_shared} shared ones were asked for; a task needs one that it "
            "may read. Ask for one of either."
        )
        raise RequestError(message)
    return [task for task in range(num_tasks) for _ in range(num_specific)] + [num_tasks] * num_shared


def owned(owner: list[int], num_outputs: int) -> Tensor:
    """(O, E) which experts are an output's own."""
    return torch.tensor(owner).unsqueeze(0) == torch.arange(num_outputs).unsqueeze(1)


def own_and_shared(owner: list[int], num_tasks: int, num_outputs: int) -> Tensor:
    """(O, E) a task may read its own experts and the shared ones, and the shared output T, if there is one, those."""
    return owned(owner, num_outputs) | (torch.tensor(owner) == num_tasks)


def columns(
    num_tasks: int,
    width: int,
    levels: Sequence[int],
    *,
    num_specific: int,
    num_shared: int,
    route: Callable[[int, list[int], int], Route],
    auxiliary: Mapping[str, float] | None,
) -> Levels:
    """Levels of own and shared experts; a task, and the shared part below the last level, has a stream of its own.

    Args:
        num_tasks: T.
        width: F, the size of the features.
        levels: size of each level's experts.
        num_specific: experts of each task and level.
        num_shared: shared experts of each level.
        route: builds a level's route from the size of its input, the owners of its experts, and the number of outputs.
        auxiliary: scales of regularising losses by name.
    """
    owner = owners(num_tasks, num_specific, num_shared)
    mixes: list[Mix] = []
    for number, (inputs, outputs) in enumerate(steps(width, levels), start=1):
        below = number < len(levels) and num_shared > 0
        chosen = route(inputs, owner, num_tasks + below)
        mixes.append(Mix(Experts(len(owner), inputs, (outputs,)), chosen, source=owner, auxiliary=auxiliary))
    return Levels(mixes)


def groups_of(groups: Sequence[Sequence[int]] | None, num_tasks: int) -> list[int]:
    """The group of each task, by number.

    Args:
        groups: the tasks of each group, each task once; None means two halves in order.
        num_tasks: T.

    Raises:
        RequestError: groups that do not hold each task once.
    """
    half = -(-num_tasks // 2)
    given = [part for part in (range(half), range(half, num_tasks)) if part] if groups is None else groups
    found = {task: number for number, group in enumerate(given) for task in group}
    named = [task for group in given for task in group]
    if sorted(named) != list(range(num_tasks)) or not all(given):
        message = (
            f"The groups {[list(group) for group in given]} were given; the {num_tasks} tasks, numbered from 0, need "
            "one group each. Name each task once, and leave no group empty."
        )
        raise RequestError(message)
    return [found[task] for task in range(num_tasks)]
