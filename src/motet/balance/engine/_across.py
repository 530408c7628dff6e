"""Gradients across the processes of a data-parallel run: compared layer by layer, and averaged."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from motet.balance.engine._layers import EmbeddingLayer, Layer, LinearLayer, PlainLayer, as_real, inner, shaped
from motet.balance.engine._owned import OwnedLinearLayer
from motet.balance.engine._passes import Passes
from motet.balance.engine._ranks import Ranks, highest, joined, stacked, summed

Grads = Sequence[tuple[Tensor, Tensor]]
BUCKET = 1 << 24  # numbers that are averaged at once
_NONE, _DENSE, _SPARSE = 0, 1, 2


def gramian_across(ranks: Ranks, passes: Passes) -> Tensor:
    """Inner products (T, T) of the processes' mean gradients, float64.

    Each layer's are found on one process, to which the others send their rows of gradients and inputs, or their
    gradients of the weights, whichever is less.
    """
    layers = [layer.core for layer in passes.layers]
    device = passes.losses[0].device
    marks = stacked(ranks, torch.tensor([_fingerprint(layers, list(passes.shared))], device=device))
    if not bool((marks == marks[0]).all()):
        # A process that lacks tasks may read the same layers in another way; their gradients always match.
        return inner(summed(ranks, passes.jacobian()) / len(ranks))
    counts = stacked(ranks, torch.tensor([_num_rows(layer) for layer in layers], device=device)).T.tolist()
    dealt = enumerate(zip(layers, counts, strict=True))
    received = [_sent(ranks, layer, rows, number % len(ranks)) for number, (layer, rows) in dealt]
    total = torch.zeros(len(passes.losses), len(passes.losses), dtype=torch.float64, device=device)
    for layer in received:
        if layer is not None:
            total += layer.gramian()
    total = summed(ranks, total) / len(ranks) ** 2
    return 0.5 * (total + total.T)


def _sent(ranks: Ranks, layer: Layer, rows: list[int], to: int) -> Layer | None:
    """The layer with the rows of all processes, on one of them."""
    if isinstance(layer, LinearLayer) and _is_less_by_rows(layer, max(rows)):
        deltas = joined(ranks, layer.deltas, dim=1, rows=rows, to=to)
        inputs = joined(ranks, layer.inputs, dim=0, rows=rows, to=to)
        return replace(layer, deltas=torch.cat(deltas, dim=1), inputs=torch.cat(inputs)) if deltas else None
    if isinstance(layer, OwnedLinearLayer):
        deltas, owners, inputs = (
            joined(ranks, part, dim=0, rows=rows, to=to) for part in (layer.deltas, layer.owners, layer.inputs)
        )
        if not deltas:
            return None
        return replace(layer, deltas=torch.cat(deltas), owners=torch.cat(owners), inputs=torch.cat(inputs))
    if isinstance(layer, EmbeddingLayer):
        deltas = joined(ranks, layer.deltas, dim=1, rows=rows, to=to)
        indices = joined(ranks, layer.indices, dim=0, rows=rows, to=to)
        return replace(layer, deltas=torch.cat(deltas, dim=1), indices=torch.cat(indices)) if deltas else None
    grads = summed(ranks, torch.cat([as_real(part) for part in layer.rows().values()], dim=1), to=to)
    return PlainLayer(grads, 0) if ranks.here == to else None


def _is_less_by_rows(layer: LinearLayer, rows: int) -> bool:
    num_tasks, _, width = layer.deltas.shape
    num_inputs = layer.inputs.shape[1]
    return layer.weight is not None and rows * (num_tasks * width + num_inputs) < num_tasks * width * num_inputs


def _num_rows(layer: Layer) -> int:
    if isinstance(layer, OwnedLinearLayer):
        return len(layer.deltas)
    return layer.deltas.shape[1] if isinstance(layer, LinearLayer | EmbeddingLayer) else 0


def _fingerprint(layers: Sequence[Layer], keys: Sequence[int]) -> int:
    """A number for how the layers were read: the kind of each, and which parameters it holds."""
    places = {key: place for place, key in enumerate(keys)}
    form = [(type(layer).__name__, sorted(places[key] for key in layer.keys)) for layer in layers]
    return int.from_bytes(hashlib.blake2b(repr(form).encode(), digest_size=7).digest())


@contextmanager
def averaged(ranks: Ranks) -> Iterator[None]:
    """Averages over the processes what is added to `.grad` meanwhile; what was there before is not touched."""
    before = [(parameter, parameter.grad) for parameter in ranks.parameters]
    for parameter in ranks.parameters:
        parameter.grad = None
    try:
        yield
        _average(ranks)
    except BaseException:
        for parameter, grad in before:
            parameter.grad = grad
        raise
    for parameter, grad in before:
        if grad is not None:
            parameter.grad = grad if parameter.grad is None else grad + parameter.grad


def _average(ranks: Ranks) -> None:
    kinds = [_NONE if p.grad is None else _SPARSE if p.grad.is_sparse else _DENSE for p in ranks.parameters]
    if not kinds:
        return
    agreed = highest(ranks, torch.tensor(kinds, device=ranks.parameters[0].device)).tolist()
    grads: list[tuple[Tensor, Tensor]] = []
    for kind, parameter in zip(agreed, ranks.parameters, strict=True):
        grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        if kind == _SPARSE:
            parameter.grad = _mean_of_sparse(ranks, grad)
        elif kind == _DENSE:
            grads.append((parameter, grad))
    for parameter, mean in means(ranks, grads):
        parameter.grad = mean


def means(ranks: Ranks, grads: Grads) -> Iterator[tuple[Tensor, Tensor]]:
    """Parameters with the mean of the processes' gradients; the same parameters, in one order, on all of them."""
    for bucket in _buckets(grads):
        parts = [as_real(grad.unsqueeze(0)).flatten() for _, grad in bucket]
        flat = summed(ranks, torch.cat(parts) / len(ranks))
        for (parameter, _), part in zip(bucket, flat.split([len(part) for part in parts]), strict=True):
            yield parameter, shaped(part, parameter).clone()


def _mean_of_sparse(ranks: Ranks, grad: Tensor) -> Tensor:
    grad = (grad if grad.is_sparse else grad.to_sparse(1)).coalesce()
    indices = torch.cat(joined(ranks, grad.indices(), dim=1), dim=1)
    values = torch.cat(joined(ranks, grad.values(), dim=0)) / len(ranks)
    return torch.sparse_coo_tensor(indices, values, grad.shape, check_invariants=False)


def _buckets(grads: Grads) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Parameters with their gradients, those of one dtype and device together, in pieces of bounded size."""
    found: dict[tuple[torch.dtype, torch.device], list[tuple[Tensor, Tensor]]] = {}
    for parameter, grad in grads:
        bucket = found.setdefault((grad.dtype, grad.device), [])
        bucket.append((parameter, grad))
        if sum(part.numel() for part, _ in bucket) >= BUCKET:
            yield found.pop((grad.dtype, grad.device))
    yield from found.values()
