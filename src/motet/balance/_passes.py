"""The passes through the network: every task's gradient where it is needed, without forming it where it is not."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from motet.balance._graph import Graph, Node, Use, read_graph
from motet.balance._layers import EmbeddingLayer, Layer, LinearLayer, PlainLayer, patches

Edge = GradientEdge | Tensor


class Passes:
    """Gradients of T losses at shared parameters, layer by layer.

    The tasks' own parts are passed through once each, down to where the tasks meet; from there one batched backward
    takes all tasks through the common part to the layers' outputs.

    Args:
        losses: a scalar a task.
        shared: parameters at which the tasks' gradients are compared.
    """

    def __init__(self, losses: Mapping[str, Tensor], shared: Sequence[Tensor]) -> None:
        self.losses = list(losses.values())
        self.shared = {id(parameter): parameter for parameter in shared if parameter.requires_grad}
        self.graph: Graph = read_graph(losses, list(self.shared.values()))
        self.own_grads: dict[int, Tensor] = {}
        self.layers: list[Layer] = self._read()

    @property
    def others(self) -> list[Tensor]:
        """Parameters that the losses depend on and that are not shared: heads, mostly."""
        return [leaf for key, leaf in self.graph.leaves.items() if key not in self.shared]

    def _read(self) -> list[Layer]:
        plans = _plans(self.graph, self.shared)
        deltas = self._deltas([edge for plan in plans for edge in plan.edges])
        return [plan.build(deltas) for plan in plans]

    def _deltas(self, edges: list[Edge]) -> dict[Any, Tensor]:
        """Every task's gradient (T, ...) at each edge."""
        common = [edge for edge in edges if self._is_common(edge)]
        private = [edge for edge in edges if not self._is_common(edge)]
        frontier: list[Edge] = list(self.graph.frontier)
        if not frontier or _is_nested(self.graph.frontier) or self._passes_by(common):
            frontier.clear()
            private = edges
        tops = self._tops(frontier, private)
        found = {_key(edge): tops[_key(edge)] for edge in private}
        if frontier and common:
            grads = _batched(frontier, common, [tops[_key(edge)] for edge in frontier])
            found |= {_key(edge): grad for edge, grad in zip(common, grads, strict=True)}
        return found

    def _tops(self, frontier: list[Edge], private: list[Edge]) -> dict[Any, Tensor]:
        """Each loss's own pass: its gradient at the frontier, at layers of its own, and at its own parameters."""
        edges = [*frontier, *private]
        rows: list[list[Tensor | None]] = []
        for number, loss in enumerate(self.losses):
            leaves = [leaf for leaf in self.others if self._only(leaf, number)] if frontier else []
            grads = _grads([loss], [*edges, *leaves])
            rows.append(list(grads[: len(edges)]))
            self.own_grads |= {
                id(leaf): grad for leaf, grad in zip(leaves, grads[len(edges) :], strict=True) if grad is not None
            }
        return {_key(edge): _stack([row[place] for row in rows], edge) for place, edge in enumerate(edges)}

    def _only(self, leaf: Tensor, number: int) -> bool:
        return self.graph.leaf_reached_by.get(id(leaf), 0) == 1 << number

    def _is_common(self, edge: Edge) -> bool:
        return isinstance(edge, Tensor) or self.graph.is_common(edge.node)

    def _passes_by(self, edges: list[Edge]) -> bool:
        """Whether a parameter that is to be read as it is has a use in a task's own part."""
        leaves = [edge for edge in edges if isinstance(edge, Tensor)]
        return any(not self.graph.is_common(use.node) for leaf in leaves for use in self.graph.uses.get(id(leaf), []))

    def gramian(self) -> Tensor:
        """Inner products (T, T) of the tasks' gradients, float64."""
        size = len(self.losses)
        total = torch.zeros(size, size, dtype=torch.float64, device=self.losses[0].device)
        for layer in self.layers:
            total += layer.gramian()
        return 0.5 * (total + total.T)

    def combine(self, weights: Tensor) -> dict[int, Tensor]:
        """The weighted sum of the tasks' gradients, by the parameter's id."""
        found: dict[int, Tensor] = {}
        for layer in self.layers:
            found |= layer.combine(weights)
        return found

    def jacobian(self) -> Tensor:
        """Every task's gradient as one row: (T, P), in the order of the shared parameters."""
        rows: dict[int, Tensor] = {}
        for layer in self.layers:
            rows |= layer.rows()
        parts = [
            rows[key].flatten(1) if key in rows else parameter.new_zeros(len(self.losses), parameter.numel())
            for key, parameter in self.shared.items()
        ]
        return torch.cat([part.to(parts[0].dtype) for part in parts], dim=1)


class _Plan:
    """How one group of parameters is read: the edges whose gradients it needs, and what is built from them."""

    def __init__(self, edges: list[Edge], build: Callable[[dict[Any, Tensor]], Layer]) -> None:
        self.edges = edges
        self.build = build


def _plans(graph: Graph, shared: Mapping[int, Tensor]) -> list[_Plan]:
    uses = {key: graph.uses.get(key, []) for key in shared if key in graph.leaves}
    readers = {key: _reader_of(found) for key, found in uses.items()}
    biases = {key: bias for key, reader in readers.items() if reader and (bias := _bias_of(key, uses)) is not None}
    return [_plan(readers[key], uses[key], shared[key], biases.get(key)) for key in uses if key not in biases.values()]


def _plan(reader: "Reader | None", uses: list[Use], parameter: Tensor, bias: int | None) -> _Plan:
    key = id(parameter)
    if reader is None:
        return _Plan([parameter], lambda deltas: PlainLayer(deltas[key], key))
    edges: list[Edge] = [GradientEdge(use.node, 0) for use in uses]

    def build(deltas: dict[Any, Tensor]) -> Layer:
        parts = [reader(use.node, deltas[_key(edge)]) for use, edge in zip(uses, edges, strict=True)]
        joined = torch.cat([delta for delta, _ in parts], dim=1)
        inputs = torch.cat([rows for _, rows in parts], dim=0)
        if reader is _embedding:
            return EmbeddingLayer(joined, inputs, key, len(parameter))
        layer = LinearLayer(
            joined, inputs, key, bias, transposed=reader is _linear and "TBackward0" not in uses[0].passed
        )
        return _Reshaped(layer, key, parameter.shape) if reader is _convolution else layer

    return _Plan(edges, build)


class _Reshaped(Layer):
    """A convolution's kernel: a linear layer over patches, laid out as the kernel is."""

    def __init__(self, layer: LinearLayer, key: int, shape: torch.Size) -> None:
        self.layer, self.key, self.shape = layer, key, shape

    def gramian(self) -> Tensor:
        return self.layer.gramian()

    def combine(self, weights: Tensor) -> dict[int, Tensor]:
        found = self.layer.combine(weights)
        return found | {self.key: found[self.key].reshape(self.shape)}

    def rows(self) -> dict[int, Tensor]:
        found = self.layer.rows()
        return found | {self.key: found[self.key].reshape(-1, *self.shape)}


Reader = Callable[[Node, Tensor], tuple[Tensor, Tensor]]


def _reader_of(uses: list[Use]) -> Reader | None:
    """How to read a matrix that is used so; None where it has no faster way than its gradients themselves."""
    found = {_reader(use) for use in uses}
    layouts = {"TBackward0" in use.passed for use in uses}
    return found.pop() if len(found) == 1 and len(layouts) == 1 else None


def _reader(use: Use) -> Reader | None:
    node, name = use.node, use.node.name()
    if name == "AddmmBackward0" and use.place == 2 and node._saved_beta == 1 and node._saved_alpha == 1:
        return _linear
    if name == "MmBackward0" and use.place == 1:
        return _linear
    if name == "ConvolutionBackward0" and use.place == 1 and _is_plain_convolution(node):
        return _convolution
    if name == "EmbeddingBackward0" and not node._saved_scale_grad_by_freq:
        return _embedding
    return None


def _bias_of(key: int, uses: Mapping[int, list[Use]]) -> int | None:
    """The shared bias that is used beside a matrix at each of its uses, and nowhere else."""
    nodes = {use.node for use in uses[key]}
    place = {"AddmmBackward0": 0, "ConvolutionBackward0": 2}.get(uses[key][0].node.name())
    for other, found in uses.items():
        if other != key and {use.node for use in found} == nodes and all(use.place == place for use in found):
            return other
    return None


def _is_plain_convolution(node: Node) -> bool:
    return node._saved_groups == 1 and not node._saved_transposed and node._saved_input.ndim == 4


def _linear(node: Node, delta: Tensor) -> tuple[Tensor, Tensor]:
    inputs = node._saved_mat1 if node.name() == "AddmmBackward0" else node._saved_self
    return _wide(delta), _wide(inputs.detach())


def _convolution(node: Node, delta: Tensor) -> tuple[Tensor, Tensor]:
    kernel = tuple(node._saved_weight.shape[2:])
    rows = patches(
        node._saved_input.detach(),
        kernel,
        stride=tuple(node._saved_stride),
        padding=tuple(node._saved_padding),
        dilation=tuple(node._saved_dilation),
    )
    return _wide(delta.flatten(3).permute(0, 1, 3, 2).flatten(1, 2)), _wide(rows)


def _embedding(node: Node, delta: Tensor) -> tuple[Tensor, Tensor]:
    indices = node._saved_indices.flatten()
    delta = _wide(delta.flatten(1, -2))
    padding = node._saved_padding_idx
    # torch keeps "no padding index" as the largest unsigned number.
    if 0 <= padding < 2**62:
        delta = delta * (indices != padding).unsqueeze(-1)
    return delta, indices


def _wide(values: Tensor) -> Tensor:
    return values.float() if values.dtype in {torch.bfloat16, torch.float16} else values


def _batched(outputs: list[Edge], inputs: list[Edge], grads: list[Tensor]) -> list[Tensor]:
    """Gradients at `inputs` for every task: one batched backward, or one backward a task where batching fails."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a slow fallback inside vmap warns; the result is right
            found = _grads(outputs, inputs, grads, batched=True)
    except RuntimeError:
        rows = [_grads(outputs, inputs, [grad[task] for grad in grads]) for task in range(len(grads[0]))]
        return [_stack([row[place] for row in rows], edge) for place, edge in enumerate(inputs)]
    return [
        _stack([None] * len(grads[0]), edge) if grad is None else grad for grad, edge in zip(found, inputs, strict=True)
    ]


def _grads(
    outputs: Sequence[Edge], inputs: Sequence[Edge], grads: Sequence[Tensor] | None = None, *, batched: bool = False
) -> Sequence[Tensor | None]:
    """`torch.autograd.grad`, whose types know no edges as outputs; the graph is kept."""
    grad: Any = torch.autograd.grad
    return grad(outputs, inputs, grads, is_grads_batched=batched, retain_graph=True, allow_unused=True)


def _stack(rows: Sequence[Tensor | None], edge: Edge) -> Tensor:
    """Rows (T, ...); a missing one is zero."""
    known = next((row for row in rows if row is not None), None)
    if known is None:
        known = edge if isinstance(edge, Tensor) else _output_like(edge)
    known = known.detach()
    return torch.stack([torch.zeros_like(known) if row is None else row.detach() for row in rows])


def _output_like(edge: GradientEdge) -> Tensor:
    metadata = edge.node._input_metadata[edge.output_nr]
    return torch.zeros(tuple(metadata.shape), dtype=metadata.dtype, device=metadata.device)


def _is_nested(frontier: list[GradientEdge]) -> bool:
    """Whether one edge of the frontier lies below another: gradients there would be counted twice."""
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


def _key(edge: Edge) -> Any:
    return id(edge) if isinstance(edge, Tensor) else (edge.node, edge.output_nr)
