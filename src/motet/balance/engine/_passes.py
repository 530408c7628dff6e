"""The passes through the network: every task's gradient where it is needed, without forming it where it is not."""

import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from motet.balance.engine._graph import Graph, is_nested, read_graph
from motet.balance.engine._layers import Layer, as_real
from motet.balance.engine._plans import Delta, Plan, make_plans
from motet.balance.engine._row_pass import Held, pass_rows
from motet.balance.engine._rows import CoupledError, Rows
from motet.balance.engine._top_pass import Key, TopPass, below_splits, grads_of, key_of, read_tops, zeros_at
from motet.balance.engine._tops import shared_owners


class Passes:
    """Gradients of T losses at shared parameters, layer by layer.

    The tasks' own parts are passed through first, down to where the tasks meet. From there one backward takes all tasks
    together through the common part to the layers' outputs: a plain one where each row belongs to one task and no
    operation mixes rows, else a batched one.

    Args:
        losses: a scalar a task.
        shared: parameters at which the tasks' gradients are compared.
    """

    def __init__(self, losses: Mapping[str, Tensor], shared: Sequence[Tensor]) -> None:
        self.losses = list(losses.values())
        self.shared = {id(parameter): parameter for parameter in shared if parameter.requires_grad}
        self.graph: Graph = read_graph(losses, list(self.shared.values()))

    @property
    def others(self) -> list[Tensor]:
        """Parameters that the losses depend on and that are not shared: heads, mostly."""
        return [leaf for key, leaf in self.graph.leaves.items() if key not in self.shared]

    @property
    def own_grads(self) -> dict[int, Tensor]:
        """Gradients of the tasks' own parameters, by id, as far as the passes came by them."""
        return self.top_pass.leaves

    @cached_property
    def frontier(self) -> list[GradientEdge]:
        """The edges at which tasks meet; none where they meet at several depths, or at the parameters alone."""
        found = below_splits(self.graph.frontier)
        return [] if is_nested(found) else found

    @cached_property
    def top_pass(self) -> TopPass:
        """The passes through the tasks' own parts."""
        edges = [edge for plan in [*self._plans, *self.plans_by_rows] for edge in plan.edges]
        own = {key_of(edge): edge for edge in edges if not self.is_common(edge)}
        masks = self.graph.leaf_reached_by
        leaves = {id(leaf): leaf for leaf in self.others if masks.get(id(leaf), 0).bit_count() == 1}
        return read_tops(self.losses, self.graph, self.frontier, list(own.values()), leaves)

    @cached_property
    def layers(self) -> list[Layer]:
        """What is needed of every task's gradient at each layer."""
        by_rows = self._owned()
        if by_rows is not None:
            return [plan.build(by_rows, len(self.losses)) for plan in self.plans_by_rows]
        deltas = self._own_deltas(self._plans)
        common = self._common(self._plans)
        if common and self.frontier and not self._is_passed_by:
            grads = batched_grads(self.frontier, common, [top.dense for top in self.top_pass.tops])
            deltas |= {key_of(edge): Delta(grad) for edge, grad in zip(common, grads, strict=True)}
        elif common:
            tops = read_tops(self.losses, self.graph, common, [], {}).tops
            deltas |= {key_of(top.edge): Delta(top.dense) for top in tops}
        return [plan.build(deltas, len(self.losses)) for plan in self._plans]

    def _owned(self) -> dict[Key, Delta] | None:
        """The gradients, where each row belongs to one task all the way down; else None."""
        deltas = self._own_deltas(self.plans_by_rows)
        common = self._common(self.plans_by_rows)
        if not common:
            return deltas if self.plans_by_rows else None
        owners = shared_owners(self.top_pass.tops) if self.frontier else None
        if owners is None:
            return None
        try:
            lies = self.rows_at(owners.new_zeros(0), common)
        except CoupledError:
            return None
        ones = torch.ones(len(self.losses))
        grads = grads_of(self.frontier, common, [top.combine(ones) for top in self.top_pass.tops])
        for edge, grad in zip(common, grads, strict=True):
            values = zeros_at(edge) if grad is None else grad.detach()
            labels = lies[key_of(edge)][1].labels(owners.clamp(min=0), values.ndim)
            deltas[key_of(edge)] = Delta(values.unsqueeze(0), labels)
        return deltas

    def rows_at(
        self, index: Tensor, edges: Sequence[GradientEdge], *, weights: Tensor | None = None
    ) -> dict[Key, Held]:
        """Every task's gradients at some rows, at edges of the common part, without the other rows.

        Args:
            index: (r,) the rows.
            edges: where.
            weights: (T, r) of the rows; None for the gradients as they are.

        Raises:
            CoupledError: an operation on the way mixes rows, or is not known.
        """
        starts = {}
        for top in self.top_pass.tops:
            values = top.some(index)
            if weights is not None:
                values = values * weights.to(values.dtype).reshape(*weights.shape, *[1] * (values.ndim - 2))
            starts[key_of(top.edge)] = (values, Rows(top.shape[0], index))
        found = pass_rows(self.graph, starts, [key_of(edge) for edge in edges])
        missed = [edge.node.name() for edge in edges if key_of(edge) not in found]
        if missed:
            raise CoupledError(missed[0])
        return found

    def _own_deltas(self, plans: Sequence[Plan]) -> dict[Key, Delta]:
        """Gradients at the edges that one task alone reaches."""
        found = {}
        for edge in (edge for plan in plans for edge in plan.edges if not self.is_common(edge)):
            grad = self.top_pass.own.get(key_of(edge))
            values = zeros_at(edge) if grad is None else grad
            task = self.graph.reached_by[edge.node].bit_length() - 1
            owners = torch.full([1] * values.ndim, task, device=values.device)
            found[key_of(edge)] = Delta(values.unsqueeze(0), owners)
        return found

    def _common(self, plans: Sequence[Plan]) -> list[GradientEdge]:
        return [edge for plan in plans for edge in plan.edges if self.is_common(edge)]

    def is_common(self, edge: GradientEdge) -> bool:
        """Whether several tasks reach the edge."""
        return self.graph.is_common(edge.node)

    @cached_property
    def _plans(self) -> list[Plan]:
        return make_plans(self.graph, self.shared, norms=False)

    @cached_property
    def plans_by_rows(self) -> list[Plan]:
        """The same, without any parameter whose gradients are read as they are; empty where there is one."""
        return [] if self.unread else make_plans(self.graph, self.shared, norms=True)

    @cached_property
    def unread(self) -> str:
        """The first operation that uses a shared parameter and tells nothing of its rows; empty where there is none."""
        found = [plan for plan in make_plans(self.graph, self.shared, norms=True) if plan.reader is None]
        uses = [use for plan in found for use in self.graph.uses.get(plan.parameters[0], [])]
        return uses[0].node.name() if uses else "an operation" if found else ""

    @cached_property
    def _is_passed_by(self) -> bool:
        """Whether a parameter that is to be read as it is has a use in a task's own part."""
        keys = [key for plan in self._plans if plan.reader is None for key in plan.parameters]
        return any(not self.graph.is_common(use.node) for key in keys for use in self.graph.uses.get(key, []))

    def gramian(self) -> Tensor:
        """Inner products (T, T) of the tasks' gradients, float64."""
        size = len(self.losses)
        total = torch.zeros(size, size, dtype=torch.float64, device=self.losses[0].device)
        for layer in self.layers:
            total += layer.gramian()
        return 0.5 * (total + total.T)

    def combine(self, weights: Tensor) -> dict[int, Tensor]:
        """The weighted sum of the tasks' gradients, by the parameter's id, in tensors that nothing else holds."""
        if "layers" not in self.__dict__:
            return self._combined_at_once(weights)
        found: dict[int, Tensor] = {}
        for layer in self.layers:
            found |= layer.combine(weights)
        return found

    def _combined_at_once(self, weights: Tensor) -> dict[int, Tensor]:
        """The same by one ordinary backward, where no task's gradients have been read layer by layer."""
        keys = [key for key in self.shared if key in self.graph.leaves]
        leaves = [self.shared[key] for key in keys]
        if self.frontier and all(self._is_below(key) for key in keys):
            grads = grads_of(self.frontier, leaves, [top.combine(weights) for top in self.top_pass.tops])
        else:
            stacked = torch.stack(self.losses)
            grads = grads_of([(stacked * weights.to(stacked)).sum()], leaves)
        # Products are new tensors; what is only passed on may be another parameter's gradient too.
        new = {key for plan in self.plans_by_rows if plan.is_product for key in plan.parameters[:1]}
        found = {key: grad for key, grad in zip(keys, grads, strict=True) if grad is not None}
        return {key: grad if key in new else grad.clone() for key, grad in found.items()}

    def _is_below(self, key: int) -> bool:
        """Whether every use of the parameter lies below where the tasks meet."""
        return all(self.graph.is_common(use.node) for use in self.graph.uses.get(key, []))

    def jacobian(self) -> Tensor:
        """Every task's gradient as one row: (T, P), in the order of the shared parameters; complex ones as pairs."""
        rows: dict[int, Tensor] = {}
        for layer in self.layers:
            rows |= layer.rows()
        parts = [
            as_real(rows[key] if key in rows else parameter.new_zeros(len(self.losses), *parameter.shape))
            for key, parameter in self.shared.items()
        ]
        return torch.cat([part.to(parts[0].dtype) for part in parts], dim=1)


def batched_grads(
    outputs: Sequence[GradientEdge], inputs: Sequence[GradientEdge], grads: Sequence[Tensor]
) -> list[Tensor]:
    """Gradients at `inputs` for every task: one batched backward, or one backward a task where batching fails."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a slow fallback inside vmap warns; the result is right
            found = grads_of(outputs, inputs, grads, batched=True)
    except RuntimeError:
        rows = [grads_of(outputs, inputs, [grad[task] for grad in grads]) for task in range(len(grads[0]))]
        zeros = [zeros_at(edge) for edge in inputs]
        filled = [[zero if row is None else row for row, zero in zip(found, zeros, strict=True)] for found in rows]
        return [torch.stack(parts).detach() for parts in zip(*filled, strict=True)]
    num_tasks = len(grads[0])
    return [
        zeros_at(edge).expand(num_tasks, *zeros_at(edge).shape) if grad is None else grad
        for grad, edge in zip(found, inputs, strict=True)
    ]
