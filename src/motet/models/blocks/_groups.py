"""Rows sent to the experts that they chose, and brought back: sort, one grouped product, a weighted sum."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

# One call over ragged groups, without padding; older releases of torch lack it.
_grouped_mm: Callable[..., Tensor] | None = getattr(functional, "grouped_mm", None)


@dataclass(frozen=True)
class Groups:
    """Rows sorted by the expert that reads them.

    Args:
        members: (R,) the expert of each sorted row.
        ends: (E,) int32, where each expert's rows end.
        order: (R,) the pair that stands at each sorted place.
        places: (R,) the sorted place of each pair.
    """

    members: Tensor
    ends: Tensor
    order: Tensor
    places: Tensor


def group(chosen: Tensor, num_experts: int) -> Groups:
    """Sorts pairs by expert.

    Args:
        chosen: (R,) the expert of each pair.
        num_experts: E.
    """
    order = chosen.argsort(stable=True)
    places = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    counts = torch.zeros(num_experts, dtype=torch.int64, device=chosen.device).scatter_add_(
        0, chosen, torch.ones_like(chosen)
    )
    return Groups(chosen[order], counts.cumsum(0).to(torch.int32), order, places)


def grouped_product(rows: Tensor, weights: Tensor, groups: Groups) -> Tensor:
    """Each sorted row (R, in) through its own expert's matrix of (E, in, out): (R, out)."""
    if torch.is_autocast_enabled(rows.device.type):
        kind = torch.get_autocast_dtype(rows.device.type)
        rows, weights = rows.to(kind), weights.to(kind)
    if _grouped_mm is not None and _fits(rows, weights):
        return _grouped_mm(rows, weights, offs=groups.ends)
    return _padded_product(rows, weights, groups)


def _fits(rows: Tensor, weights: Tensor) -> bool:
    """Whether torch's own product takes these: it wants rows that begin at multiples of 16 bytes."""
    if rows.is_cuda:
        known = rows.dtype == torch.bfloat16 and torch.cuda.get_device_capability(rows.device) >= (9, 0)
    else:
        known = rows.dtype in {torch.float32, torch.bfloat16}
    return known and all(width * rows.element_size() % 16 == 0 for width in weights.shape[1:])


def _padded_product(rows: Tensor, weights: Tensor, groups: Groups) -> Tensor:
    """The same for any size and type: every expert's rows padded to the longest group, one batched product."""
    num_experts, ends = len(weights), groups.ends.long()
    starts = functional.pad(ends[:-1], (1, 0))
    longest = max(1, int((ends - starts).max()))
    place = torch.arange(len(rows), device=rows.device) - starts[groups.members] + groups.members * longest
    padded = rows.new_zeros(num_experts * longest, rows.shape[1]).index_copy(0, place, rows)
    products = torch.bmm(padded.view(num_experts, longest, -1), weights)
    return products.flatten(0, 1)[place]


def gather(products: Tensor, weights: Tensor, groups: Groups) -> Tensor:
    """Sums each row's k chosen products under its weights.

    Args:
        products: (R, H) in sorted order.
        weights: (..., k) with R entries.
        groups: how the rows were sorted.

    Returns:
        (..., H).
    """
    places = groups.places.view(-1, weights.shape[-1])
    # One pass that reads, weighs and sums; a gather would first write all R rows out.
    summed = functional.embedding_bag(
        places, products, per_sample_weights=weights.reshape(places.shape).to(products.dtype), mode="sum"
    )
    return summed.view(*weights.shape[:-1], products.shape[-1])
