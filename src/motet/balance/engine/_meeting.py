"""How the processes of a data-parallel run agree on the tasks of a step and on their losses."""

import hashlib
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from motet._errors import RequestError
from motet.balance.engine._ranks import Ranks, stacked
from motet.balance.engine._setting import Setting

Check = Callable[[Mapping[str, Tensor]], None]


def settle(
    losses: Mapping[str, Tensor], check: Check, *, scaler: torch.amp.GradScaler | None, ranks: Ranks | None
) -> tuple[dict[str, Tensor], Setting]:
    """The losses to pass through the network backwards, and what turns their gradients into the true ones.

    Args:
        losses: of this process's rows, not scaled.
        check: raises where they cannot be used.
        scaler: scales them.
        ranks: the processes.
    """
    if ranks is None:
        check(losses)
        found = dict(losses)
        values = {name: loss.detach().double().reshape(()) for name, loss in losses.items()}
        own = frozenset(losses)
    else:
        found, values, own = _meet(ranks, losses, check)
    scale = None
    if scaler is not None and scaler.is_enabled():
        found = {name: scaler.scale(loss) for name, loss in found.items()}
        scale = scaler.get_scale()
    return found, Setting(values, own, ranks, scale)


def whole_losses(ranks: Ranks, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The whole batch's losses by task, float64 and without a graph."""
    return _meet(ranks, losses, lambda _: None)[1]


def _meet(
    ranks: Ranks, losses: Mapping[str, Tensor], check: Check
) -> tuple[dict[str, Tensor], dict[str, Tensor], frozenset[str]]:
    """Exchanges the tasks' names and their losses' values: the same tasks in the same order on all processes."""
    error: RequestError | None = None
    here: dict[str, Tensor] = {}
    try:
        here = _own(ranks, losses)
        check(here)
    except RequestError as found:
        error = found  # told to the others before it is raised, so that none of them waits
    device = next((tensor.device for tensor in [*here.values(), *ranks.parameters]), torch.device("cpu"))
    marks = stacked(ranks, torch.tensor([error is None, _fingerprint(list(here))], dtype=torch.int64, device=device))
    if error is not None:
        raise error
    _check_others(marks[:, 0].tolist())
    names = list(here) if bool((marks[:, 1] == marks[0, 1]).all()) else _union(ranks, list(here))
    if not names:
        message = "No process has a loss. A step needs at least one task with a label; skip a batch that has none."
        raise RequestError(message)
    return _weighed(ranks, names, here, device)


def _own(ranks: Ranks, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tasks that this process has rows of."""
    if ranks.rows is None:
        return dict(losses)
    lacking = [name for name in losses if name not in ranks.rows]
    if lacking:
        message = (
            f"Task '{lacking[0]}' has a loss and no count in Ranks(rows=...), which has {sorted(ranks.rows)}. Give the "
            "number of rows that its loss is the mean of."
        )
        raise RequestError(message)
    return {name: loss for name, loss in losses.items() if ranks.rows[name] > 0}


def _weighed(
    ranks: Ranks, names: Sequence[str], here: Mapping[str, Tensor], device: torch.device
) -> tuple[dict[str, Tensor], dict[str, Tensor], frozenset[str]]:
    """This process's losses under weights that make the whole batch's their mean over processes; see `Ranks`."""
    counts = [float((ranks.rows or {}).get(name, 1)) if name in here else 0.0 for name in names]
    empty = torch.zeros((), dtype=torch.float64, device=device)
    values = torch.stack([here[name].detach().double().reshape(()) if name in here else empty for name in names])
    table = torch.stack([torch.tensor(counts, dtype=torch.float64, device=device), values])
    counts_RT, values_RT = stacked(ranks, table).unbind(dim=1)
    shares_RT = counts_RT / counts_RT.sum(dim=0)
    factors = (len(ranks) * shares_RT[ranks.here]).tolist()
    # What this process lacks is a constant here: connected to nothing, it has no gradient anywhere.
    dtype = next((loss.dtype for loss in here.values()), torch.float32)
    found = {
        name: _times(here[name].reshape(()), factor)
        if name in here
        else torch.zeros((), dtype=dtype, device=device, requires_grad=True) * 1
        for name, factor in zip(names, factors, strict=True)
    }
    whole = (shares_RT * values_RT).sum(dim=0)
    return found, dict(zip(names, whole.unbind(), strict=True)), frozenset(here)


def _times(loss: Tensor, factor: float) -> Tensor:
    return loss if factor == 1.0 else loss * factor


def _check_others(marks: Sequence[int]) -> None:
    if not all(marks):
        message = (
            f"The process of rank {list(marks).index(0)} was given losses that cannot be used, so that no process "
            "takes this step. Its own message says what was expected and what to do."
        )
        raise RequestError(message)


def _fingerprint(names: Sequence[str]) -> int:
    """A number for a list of names: comparing these spares the exchange of the names, which are nearly always equal."""
    return int.from_bytes(hashlib.blake2b("\0".join(names).encode(), digest_size=7).digest())


def _union(ranks: Ranks, names: Sequence[str]) -> list[str]:
    """All processes' tasks, in the order of the first process that has them."""
    found: list[list[str]] = [[] for _ in range(len(ranks))]
    dist.all_gather_object(found, list(names), group=ranks.group)
    return list(dict.fromkeys(name for part in found for name in part))
