"""The passes through the tasks' own parts, from the losses to where tasks meet."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from motet._errors import RequestError
from motet.balance.engine._graph import Graph, Node, is_nested, signed
from motet.balance.engine._tops import Piece, Top

Key = tuple[Node, int]
_SPLITS = {"SplitBackward0", "SplitWithSizesBackward0"}


@dataclass(frozen=True)
class Consumer:
    """A head's first operation on a tensor at which tasks meet.

    Args:
        node: in the graph.
        place: which of its inputs the tensor is.
        start: first row that it sees.
        count: how many rows it sees, or None for all.
    """

    node: Node
    place: int
    start: int = 0
    count: int | None = None


@dataclass(frozen=True)
class TopPass:
    """What the passes found.

    Args:
        tops: the gradients at each edge where tasks meet.
        own: at each edge that one loss alone reaches, the gradient of that loss.
        leaves: gradients of the losses' sum at parameters, by id.
    """

    tops: list[Top]
    own: dict[Key, Tensor]
    leaves: dict[int, Tensor]


def read_tops(
    losses: Sequence[Tensor], graph: Graph, frontier: Sequence[GradientEdge], own: Sequence[GradientEdge],
    leaves: Mapping[int, Tensor],
) -> TopPass:  # fmt: skip
    """Passes back from the losses: all in one where each head begins with a matrix or with some rows, else one a task.

    Args:
        losses: T scalars.
        graph: what lies above the frontier.
        frontier: edges at which tasks meet.
        own: edges that one loss alone reaches.
        leaves: parameters above the frontier, by id.
    """
    tops = [Top(edge, len(losses)) for edge in frontier]
    consumers = _all_consumers(graph, frontier)
    if consumers is None or is_nested(frontier) or {loss.grad_fn for loss in losses} & {top.edge.node for top in tops}:
        return _task_by_task(losses, graph, tops, own, leaves)
    nodes = {consumer.node: None for found in consumers for consumer in found}
    edges = [*(GradientEdge(node, 0) for node in nodes), *own]
    grads = grads_of(losses, [*edges, *leaves.values()])
    at_edges = {key_of(edge): grad.detach() for edge, grad in zip(edges, grads, strict=False) if grad is not None}
    for top, found in zip(tops, consumers, strict=True):
        for consumer in found:
            if (consumer.node, 0) in at_edges:
                task = graph.reached_by[consumer.node].bit_length() - 1
                top.pieces.append(_piece(task, consumer, at_edges[consumer.node, 0], top.shape[0]))
    at_leaves = dict(zip(leaves, grads[len(edges) :], strict=True))
    return TopPass(tops, _known(own, at_edges), {key: grad for key, grad in at_leaves.items() if grad is not None})


def _task_by_task(
    losses: Sequence[Tensor], graph: Graph, tops: list[Top], own: Sequence[GradientEdge], leaves: Mapping[int, Tensor]
) -> TopPass:
    at_own: dict[Key, Tensor] = {}
    at_leaves: dict[int, Tensor] = {}
    for task, loss in enumerate(losses):
        edges = [edge for edge in own if graph.reached_by[edge.node] >> task & 1]
        keys = [key for key in leaves if graph.leaf_reached_by.get(key, 0) >> task & 1]
        wanted = [*(top.edge for top in tops), *edges, *(leaves[key] for key in keys)]
        grads = grads_of([loss], wanted)
        for top, grad in zip(tops, grads, strict=False):
            if grad is not None:
                top.pieces.append(Piece(task, grad.detach()))
        at_edges = zip(edges, grads[len(tops) :], strict=False)
        at_own |= {key_of(edge): grad.detach() for edge, grad in at_edges if grad is not None}
        for key, grad in zip(keys, grads[len(tops) + len(edges) :], strict=True):
            if grad is not None:
                at_leaves[key] = at_leaves[key] + grad if key in at_leaves else grad
    return TopPass(tops, at_own, at_leaves)


def _known(edges: Sequence[GradientEdge], grads: Mapping[Key, Tensor]) -> dict[Key, Tensor]:
    return {key_of(edge): grads[key_of(edge)] for edge in edges if key_of(edge) in grads}


def _all_consumers(graph: Graph, frontier: Sequence[GradientEdge]) -> list[list[Consumer]] | None:
    """For each edge, the heads' first operations; None where one is not of a kind that tells its task apart."""
    users: dict[Key, list[tuple[Node, int]]] = {}
    for node in graph.reached_by:
        for place, below in enumerate(node.next_functions):
            users.setdefault(below, []).append((node, place))
    found = [_consumers(graph, users, key_of(edge)) for edge in frontier]
    known = [consumers for consumers in found if consumers is not None]
    return known if len(known) == len(found) else None


def _consumers(graph: Graph, users: Mapping[Key, list[tuple[Node, int]]], key: Key) -> list[Consumer] | None:
    consumers: list[Consumer] = []
    for node, place in users.get(key, []):
        if node.name() in _SPLITS and node._saved_dim == 0:
            for number, (start, count) in enumerate(_parts(node)):
                inner = _consumers(graph, users, (node, number))
                if inner is None or any(consumer.count is not None for consumer in inner):
                    return None
                consumers += [Consumer(consumer.node, consumer.place, start, count) for consumer in inner]
        elif graph.is_common(node) or not _is_known(node, place):
            return None
        else:
            consumers.append(Consumer(node, place))
    return consumers


def _parts(node: Node) -> list[tuple[int, int]]:
    """Where each part of a split along the rows begins, and its length."""
    total = node._saved_self_sym_sizes[0]
    if node.name() == "SplitBackward0":
        size = node._saved_split_size
        return [(start, min(size, total - start)) for start in range(0, total, size)]
    sizes = node._saved_split_sizes
    return [(sum(sizes[:number]), size) for number, size in enumerate(sizes)]


def _is_known(node: Node, place: int) -> bool:
    name = node.name()
    if node._input_metadata[0].dtype.is_complex:
        return False
    if name in {"AddmmBackward0", "MmBackward0"}:
        return place == (1 if name == "AddmmBackward0" else 0)
    if name in {"SliceBackward0", "IndexSelectBackward0"}:
        return node._saved_dim == 0
    if name == "IndexBackward0":
        indices = node._saved_indices
        return indices[0] is not None and indices[0].ndim == 1 and not any(other is not None for other in indices[1:])
    return False


def _piece(task: int, consumer: Consumer, delta: Tensor, num_rows: int) -> Piece:
    """What the head asks of the tensor, from the gradient at the output of its first operation."""
    node = consumer.node
    rows = None
    if consumer.count is not None:
        rows = torch.arange(consumer.start, consumer.start + consumer.count, device=delta.device)
    if node.name() in {"AddmmBackward0", "MmBackward0"}:
        matrix = node._saved_mat2.detach().T
        alpha = node._saved_alpha if node.name() == "AddmmBackward0" else 1
        kept = node._saved_mat1 if node.name() == "AddmmBackward0" else node._saved_self
        inputs = None if kept is None else kept.detach()
        return Piece(task, delta, matrix if alpha == 1 else matrix * alpha, rows, inputs)
    seen = torch.arange(num_rows, device=delta.device) if rows is None else rows
    if node.name() == "SliceBackward0":
        chosen = seen[signed(node._saved_start) : signed(node._saved_end) : node._saved_step]
    else:
        chosen = seen[node._saved_index if node.name() == "IndexSelectBackward0" else node._saved_indices[0]]
    return Piece(task, delta, None, chosen)


def below_splits(frontier: Sequence[GradientEdge]) -> list[GradientEdge]:
    """The same edges, with that below a split along the rows in the place of those of its parts."""
    found: dict[Key, GradientEdge] = {}
    for edge in frontier:
        node, output = key_of(edge)
        while node.name() in _SPLITS and node._saved_dim == 0:
            node, output = node.next_functions[0]
        found[node, output] = GradientEdge(node, output)
    return list(found.values())


def key_of(edge: GradientEdge) -> Any:
    """What tells edges apart: the node, and which of its outputs."""
    return edge.node, edge.output_nr


def zeros_at(edge: GradientEdge) -> Tensor:
    """A zero gradient at an edge."""
    metadata = edge.node._input_metadata[edge.output_nr]
    return torch.zeros(tuple(metadata.shape), dtype=metadata.dtype, device=metadata.device)


def grads_of(
    outputs: Sequence[GradientEdge | Tensor],
    inputs: Sequence[GradientEdge | Tensor],
    grads: Sequence[Tensor] | None = None,
    *,
    batched: bool = False,
) -> Sequence[Tensor | None]:
    """`torch.autograd.grad`, whose types know no edges as outputs; the graph is kept.

    Raises:
        RequestError: a compiled part of the network gives its memory up in its first backward.
    """
    if not inputs:
        return []
    grad: Any = torch.autograd.grad
    try:
        return grad(outputs, inputs, grads, is_grads_batched=batched, retain_graph=True, allow_unused=True)
    except RuntimeError as error:
        if "donated buffer" not in str(error):
            raise
        message = (
            "A compiled part of the network allows one backward only, and one for each task was expected. Set "
            "torch._functorch.config.donated_buffer = False before it is compiled, or, where it is the trunk, pass "
            "features=z instead of shared=."
        )
        raise RequestError(message) from error
