"""Reading the autograd graph of a forward pass: where tasks meet, and which layer each shared parameter feeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.autograd.graph import GradientEdge

Node = Any  # torch's graph nodes have no public type of their own

# Nodes between a parameter and the layer that uses it which only change how it is laid out or its dtype.
_PASSING = {"TBackward0", "ToCopyBackward0", "PermuteBackward0", "TransposeBackward0"}


@dataclass(frozen=True)
class Use:
    """One use of a parameter: the node of the layer, which of its inputs, and the nodes in between."""

    node: Node
    place: int
    passed: tuple[str, ...]


@dataclass
class Graph:
    """What lies between some losses and their parameters.

    Args:
        leaves: every parameter that the losses depend on, by id.
        reached_by: for each node, which losses reach it.
        leaf_reached_by: for each parameter's id, which losses reach it.
        uses: for each parameter's id, where it is used.
        frontier: the edges at which the losses' own parts end and the common part begins.
    """

    leaves: dict[int, Tensor] = field(default_factory=dict)
    reached_by: dict[Node, int] = field(default_factory=dict)
    leaf_reached_by: dict[int, int] = field(default_factory=dict)
    uses: dict[int, list[Use]] = field(default_factory=dict)
    frontier: list[GradientEdge] = field(default_factory=list)

    def is_common(self, node: Node) -> bool:
        """Whether more than one loss reaches the node."""
        return self.reached_by[node].bit_count() > 1

    def losses_of(self, node: Node) -> list[int]:
        """Numbers of the losses that reach the node."""
        mask = self.reached_by[node]
        return [number for number in range(mask.bit_length()) if mask >> number & 1]


def read_graph(losses: Mapping[str, Tensor], shared: Sequence[Tensor]) -> Graph:
    """Walks from the losses down to the leaves.

    Cost: one visit a node and loss; no tensor is touched.
    """
    graph = Graph()
    roots = [loss.grad_fn for loss in losses.values()]
    for number, root in enumerate(roots):
        _mark(root, 1 << number, graph)
    wanted = {id(parameter) for parameter in shared}
    leads = _leading_to(wanted, graph)
    seen: set[tuple[Node, int]] = set()
    for node in graph.reached_by:
        for place, (below, output) in enumerate(node.next_functions):
            if below is None:
                continue
            _note_use(node, place, below, graph)
            meets = leads.get(below, False) and graph.is_common(below) and not graph.is_common(node)
            if meets and not _is_leaf_side(below) and (below, output) not in seen:
                seen.add((below, output))
                graph.frontier.append(GradientEdge(below, output))
    return graph


def _mark(root: Node, bit: int, graph: Graph) -> None:
    stack = [root]
    while stack:
        node = stack.pop()
        mask = graph.reached_by.get(node, 0)
        if mask & bit:
            continue
        graph.reached_by[node] = mask | bit
        if hasattr(node, "variable"):
            graph.leaves[id(node.variable)] = node.variable
            graph.leaf_reached_by[id(node.variable)] = graph.reached_by[node]
        stack.extend(below for below, _ in node.next_functions if below is not None)


def _leading_to(wanted: set[int], graph: Graph) -> dict[Node, bool]:
    """For each node, whether a wanted parameter lies below it."""
    leads: dict[Node, bool] = {}
    for start in graph.reached_by:
        stack = [start]
        while stack:
            node = stack[-1]
            if node in leads:
                stack.pop()
                continue
            below = [other for other, _ in node.next_functions if other is not None]
            pending = [other for other in below if other not in leads]
            if pending:
                stack.extend(pending)
                continue
            own = hasattr(node, "variable") and id(node.variable) in wanted
            leads[node] = own or any(leads[other] for other in below)
            stack.pop()
    return leads


def _note_use(node: Node, place: int, below: Node, graph: Graph) -> None:
    if node.name() in _PASSING:
        return
    passed: list[str] = []
    while below.name() in _PASSING:
        passed.append(below.name())
        below = below.next_functions[0][0]
        if below is None:
            return
    if hasattr(below, "variable"):
        graph.uses.setdefault(id(below.variable), []).append(Use(node, place, tuple(passed)))


def _is_leaf_side(node: Node) -> bool:
    """Whether the node is a parameter, or a parameter laid out anew: it is used directly, not through features."""
    while node is not None and node.name() in _PASSING:
        node = node.next_functions[0][0]
    return node is None or hasattr(node, "variable")
