"""Reading the autograd graph of a forward pass: where tasks meet, and which layer each shared parameter feeds."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from motet._errors import RequestError

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
        leads: for each node, whether a shared parameter lies below it.
    """

    leaves: dict[int, Tensor] = field(default_factory=dict)
    reached_by: dict[Node, int] = field(default_factory=dict)
    leaf_reached_by: dict[int, int] = field(default_factory=dict)
    uses: dict[int, list[Use]] = field(default_factory=dict)
    frontier: list[GradientEdge] = field(default_factory=list)
    leads: dict[Node, bool] = field(default_factory=dict)

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
    _mark(losses, graph)
    refuse_reentrant(graph.reached_by)
    graph.leads = leads = _leading_to({id(parameter) for parameter in shared}, graph)
    seen: set[tuple[Node, int]] = set()
    for node in graph.reached_by:
        for place, (below, output) in enumerate(node.next_functions):
            if below is None:
                continue
            _note_use(node, place, below, graph)
            meets = leads.get(below, False) and graph.is_common(below) and not graph.is_common(node)
            if meets and not is_leaf_side(below) and (below, output) not in seen:
                seen.add((below, output))
                graph.frontier.append(GradientEdge(below, output))
    return graph


def read_above(losses: Mapping[str, Tensor], features: Sequence[Tensor]) -> Graph:
    """Walks from the losses down to shared features, which are the frontier; what lies below them is not read."""
    graph = Graph(frontier=[get_gradient_edge(tensor) for tensor in features])
    _mark(losses, graph, {edge.node for edge in graph.frontier})
    refuse_reentrant(graph.reached_by)
    return graph


def _mark(losses: Mapping[str, Tensor], graph: Graph, stops: Collection[Node] = ()) -> None:
    """Notes which losses reach each node that lies above the stops."""
    roots = [loss.grad_fn for loss in losses.values()]
    masks = dict.fromkeys(downward(roots, lambda node: node not in stops), 0)
    for number, root in enumerate(roots):
        if root in masks:
            masks[root] |= 1 << number
    for node, mask in masks.items():
        if hasattr(node, "variable"):
            graph.leaves[id(node.variable)] = node.variable
            graph.leaf_reached_by[id(node.variable)] = mask
        for below, _ in node.next_functions:
            if below in masks:
                masks[below] |= mask
    graph.reached_by = masks


def downward(starts: Iterable[Node], is_wanted: Callable[[Node], bool]) -> list[Node]:
    """The wanted nodes from some on, each after all that lead to it."""
    order: list[Node] = []
    seen: set[Node | None] = {None}
    for start in starts:
        stack = [(start, False)]
        while stack:
            node, is_done = stack.pop()
            if is_done:
                order.append(node)
            elif node not in seen and is_wanted(node):
                seen.add(node)
                stack.append((node, True))
                stack.extend((below, False) for below, _ in node.next_functions if below not in seen)
    return order[::-1]


def _leading_to(wanted: set[int], graph: Graph) -> dict[Node, bool]:
    """For each node, whether a wanted parameter lies below it."""
    leads: dict[Node, bool] = {}
    for node in reversed(graph.reached_by):
        own = hasattr(node, "variable") and id(node.variable) in wanted
        leads[node] = own or any(leads.get(below, False) for below, _ in node.next_functions)
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


def is_leaf_side(node: Node) -> bool:
    """Whether the node is a parameter, or a parameter laid out anew: it is used directly, not through features."""
    while node is not None and node.name() in _PASSING:
        node = node.next_functions[0][0]
    return node is None or hasattr(node, "variable")


def signed(number: int) -> int:
    """A number that a node has saved: torch shows -1 as the largest unsigned number."""
    return number - 2**64 if number >= 2**63 else number


def is_nested(frontier: Sequence[GradientEdge]) -> bool:
    """Whether one of the edges lies below another: gradients there would be counted twice."""
    if len(frontier) < 2:
        return False
    targets = {edge.node for edge in frontier}
    seen: set[Node] = set()
    stack = [below for edge in frontier for below, _ in edge.node.next_functions if below is not None]
    while stack:
        node = stack.pop()
        if node in targets:
            return True
        if node not in seen:
            seen.add(node)
            stack.extend(below for below, _ in node.next_functions if below is not None)
    return False


def refuse_reentrant(nodes: Iterable[Node]) -> None:
    """Checks that no parameter hides in a node.

    Raises:
        RequestError: a node recomputes a part of the network in a way that shows none of its parameters.
    """
    if any(node.name() == "CheckpointFunctionBackward" for node in nodes):
        message = (
            "The losses pass through an activation checkpoint with use_reentrant=True, which hides its parameters; one "
            "with use_reentrant=False was expected. Change it, or, where it is in the trunk, pass features=z instead "
            "of shared=."
        )
        raise RequestError(message)
