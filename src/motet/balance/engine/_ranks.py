"""The processes of a data-parallel run, as far as balancing needs them."""

import sys
from collections.abc import Iterable, Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn

from motet._errors import RequestError


class Ranks:
    """Makes the processes of a data-parallel run take one and the same step: that of the batch of all their rows.

    Every process calls `backward(losses, ..., ranks=Ranks(model.parameters()))` with the losses of its own rows; then
    gradients are compared, and averaged, over all processes, and `.grad` holds the same everywhere. With g_k^r the
    gradient of task k's loss on process r:

        L_k = Σ_r ω_k^r L_k^r,   g_k = Σ_r ω_k^r g_k^r,   ω_k^r = n_k^r / Σ_s n_k^s

    A task that a process lacks has weight 0 there. Each process must make the same call.

    Args:
        parameters: all that is trained, in the same order on all processes. Sharded ones are left to what shards them.
        group: the processes; None for all of them.
        rows: n_k^r, over how many rows of its own this process took the mean in each task's loss; a task with 0 counts
            as lacking. None: a task counts as much on each process that has it.

    Raises:
        RequestError: `torch.distributed` has not been started.

    Cost: three small messages; what is compared (see the page on balancing); and one average of all gradients, as in
        plain data-parallel training.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        *,
        group: "dist.ProcessGroup | None" = None,  # torch may be built without
        rows: Mapping[str, int] | None = None,
    ) -> None:
        if not (dist.is_available() and dist.is_initialized()):
            message = (
                "Ranks was built in a process that belongs to no process group; a data-parallel run was expected. "
                "Start it under torchrun and call torch.distributed.init_process_group(), or leave ranks= out."
            )
            raise RequestError(message)
        found = list({id(parameter): parameter for parameter in parameters}.values())
        self.parameters = [parameter for parameter in found if not is_sharded(parameter)]
        self.has_shards = len(self.parameters) < len(found)
        self.group = dist.group.WORLD if group is None else group
        self.rows = None if rows is None else dict(rows)
        self.here = dist.get_rank(self.group)

    def __len__(self) -> int:
        return dist.get_world_size(self.group)

    def __repr__(self) -> str:
        return f"Ranks({len(self.parameters)} parameters, {len(self)} processes, rows={self.rows})"


def whole(ranks: Ranks) -> list[Tensor]:
    """The parameters, where each process holds all of them whole.

    Raises:
        RequestError: some are sharded.
    """
    if ranks.has_shards:
        message = (
            "A wrapper that works on the gradient of the whole model was given one with sharded parameters; whole ones "
            "were expected. Train with DistributedDataParallel, or leave the wrapper out."
        )
        raise RequestError(message)
    return ranks.parameters


def reached(ranks: Ranks, here: Iterable[Tensor]) -> list[Tensor]:
    """The parameters that losses depend on, on any process.

    Args:
        ranks: the processes.
        here: those of this process.

    Raises:
        RequestError: one of them, on any process, is not among those of the ranks; some are sharded.
    """
    found = {id(leaf): leaf for leaf in here}
    known = [id(parameter) for parameter in whole(ranks)]
    strangers = any(isinstance(leaf, nn.Parameter) and key not in known for key, leaf in found.items())
    marks = [strangers, *(key in found for key in known)]
    device = ranks.parameters[0].device if known else torch.device("cpu")
    stranger, *agreed = highest(ranks, torch.tensor(marks, dtype=torch.int64, device=device)).tolist()
    if stranger:
        message = (
            "A loss depends on a parameter that is not among those of Ranks; all that is trained was expected. Pass "
            "Ranks(model.parameters()), with the heads among them."
        )
        raise RequestError(message)
    return [parameter for parameter, mark in zip(ranks.parameters, agreed, strict=True) if mark]


def is_sharded(tensor: Tensor) -> bool:
    """Whether each process holds a part of the tensor."""
    module = sys.modules.get("torch.distributed.tensor")  # a second to import, and there if anything is sharded
    return module is not None and isinstance(tensor, module.DTensor)


def summed(ranks: Ranks, values: Tensor, *, to: int | None = None) -> Tensor:
    """The sum over the processes, the same to the last bit on all of them; or right on one process only."""
    values = values.clone(memory_format=torch.contiguous_format)
    if to is None:
        dist.all_reduce(values, group=ranks.group)
    else:
        dist.reduce(values, dst=_global(ranks, to), group=ranks.group)
    return values


def highest(ranks: Ranks, values: Tensor) -> Tensor:
    """The greatest over the processes, element by element."""
    values = values.clone()
    dist.all_reduce(values, op=dist.ReduceOp.MAX, group=ranks.group)
    return values


def stacked(ranks: Ranks, values: Tensor) -> Tensor:
    """The processes' tensors of one shape, (R, ...)."""
    return torch.stack(_gathered(ranks, values))


def lengths(ranks: Ranks, values: Tensor, dim: int) -> list[int]:
    """How long the processes' tensors are."""
    return stacked(ranks, torch.tensor(values.shape[dim], device=values.device)).tolist()


def joined(
    ranks: Ranks, values: Tensor, dim: int, *, rows: list[int] | None = None, to: int | None = None
) -> list[Tensor]:
    """The processes' tensors, on all processes or on one, and none elsewhere.

    Args:
        ranks: the processes.
        values: tensors that may differ in length along `dim`.
        dim: that axis.
        rows: these lengths, where they are known.
        to: the one process.
    """
    rows = lengths(ranks, values, dim) if rows is None else rows
    shape = list(values.shape)
    shape[dim] = max(rows)
    padded = values.new_zeros(shape)
    padded.narrow(dim, 0, values.shape[dim]).copy_(values)
    if to is None:
        parts = _gathered(ranks, padded)
    else:
        parts = [torch.empty_like(padded) for _ in rows] if ranks.here == to else []
        dist.gather(padded, parts or None, dst=_global(ranks, to), group=ranks.group)
    return [part.narrow(dim, 0, length) for part, length in zip(parts, rows[: len(parts)], strict=True)]


def _gathered(ranks: Ranks, values: Tensor) -> list[Tensor]:
    parts = [torch.empty_like(values, memory_format=torch.contiguous_format) for _ in range(len(ranks))]
    dist.all_gather(parts, values.contiguous(), group=ranks.group)
    return parts


def _global(ranks: Ranks, rank: int) -> int:
    """What a process of the group is called among all processes."""
    return rank if ranks.group is None else dist.get_global_rank(ranks.group, rank)
