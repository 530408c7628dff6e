"""Who owns which expert: each task some, and all tasks together some."""

import torch
from torch import Tensor

from motet._errors import RequestError


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
    """(O, E) a task may read its own experts and the shared ones; the shared output T, if there is one, reads all."""
    own = owned(owner, num_outputs) | (torch.tensor(owner) == num_tasks)
    own[num_tasks:] = True
    return own
