"""What a method sees of one step; each part is computed only when it is asked for."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property

import torch
from torch import Tensor

from motet._errors import RequestError
from motet.balance.engine._graph import Graph, Node, read_above
from motet.balance.engine._layers import as_real
from motet.balance.engine._passes import Passes
from motet.balance.engine._ranks import is_sharded
from motet.balance.engine._setting import Setting
from motet.balance.engine._sketch import Sketch, estimate
from motet.balance.engine._top_pass import TopPass, read_tops


class View:
    """One step's losses and their gradients.

    Args:
        losses: a scalar for each of T tasks.
        shared: parameters at which the tasks' gradients are compared, or None.
        features: shared features at which they are compared instead, one tensor or several, or None.
        method: the method's name, for messages.
        setting: what makes the whole batch's gradients of this process's, where there are several or losses are
            scaled.
    """

    def __init__(
        self,
        losses: Mapping[str, Tensor],
        shared: Sequence[Tensor] | None,
        features: Sequence[Tensor] | None,
        *,
        method: str,
        setting: Setting | None = None,
    ) -> None:
        self.by_name = dict(losses)
        self.names = tuple(losses)
        self.shared = shared
        self.own_features = None if features is None else list(features)
        self.method = method
        self.setting = setting
        self.source = "exact"  # how the Gramian was found

    @cached_property
    def features(self) -> list[Tensor] | None:
        """The shared features, those of all processes."""
        if self.own_features is None or self.setting is None:
            return self.own_features
        return [self.setting.features(part) for part in self.own_features]

    @cached_property
    def losses(self) -> Tensor:
        """The losses' values, (T,) float64, without a graph."""
        if self.setting is not None:
            return self.setting.losses(self.names)
        return torch.stack([loss.detach().reshape(()) for loss in self.by_name.values()]).double()

    @cached_property
    def gramian(self) -> Tensor:
        """Inner products (T, T) of the tasks' gradients, float64."""
        if self.own_features is not None:
            if self.setting is None:
                return torch.stack([top.gramian() for top in self._top_pass.tops]).sum(dim=0)
            return self.setting.gramian_of_rows(_side_by_side(self.own_saliency))
        self._check_reach()
        return self.passes.gramian() if self.setting is None else self.setting.gramian(self.passes)

    def sketched(self, sketch: Sketch, step: int) -> Tensor:
        """The Gramian (T, T) from part of the rows, which then stands for the exact one; see `Sketch`.

        Args:
            sketch: how it is estimated.
            step: the step's number: other rows at each.
        """
        if self.shared is not None and self.own_features is None and self.setting is None:
            self._check_reach()
            found = estimate(self.passes, sketch, step)
            self.__dict__["gramian"], self.source = found.gramian, found.source
        return self.gramian

    @cached_property
    def jacobian(self) -> Tensor:
        """The tasks' gradients as rows: (T, P) at the parameters, or (T, numbers of the features)."""
        if self.own_features is not None:
            return _side_by_side(self.saliency)
        rows = self.passes.jacobian()
        return rows if self.setting is None else self.setting.jacobian(rows)

    @cached_property
    def saliency(self) -> list[Tensor]:
        """Every task's gradient (T, B, ...) at each tensor of the features, for the rows of all processes."""
        if self.setting is None:
            return self.own_saliency
        return [self.setting.saliency(part) for part in self.own_saliency]

    @property
    def own_saliency(self) -> list[Tensor]:
        """The gradients of this process's losses, as they are, at each tensor of its features."""
        return [top.dense for top in self._top_pass.tops]

    @cached_property
    def passes(self) -> Passes:
        """The passes to the shared parameters."""
        if self.shared is None:
            message = (
                f"{self.method} compares the tasks' gradients and was told of no place to do so. Pass "
                "shared=trunk.parameters(), or features=z for the cheap way."
            )
            raise RequestError(message)
        if any(is_sharded(parameter) for parameter in self.shared):
            message = (
                f"{self.method} was given sharded parameters in shared=; gradients are compared at whole ones. Pass "
                "features=z, for which a trunk may be sharded, or train with DistributedDataParallel."
            )
            raise RequestError(message)
        return Passes(self.by_name, self.shared)

    @cached_property
    def _above(self) -> Graph:
        return read_above(self.by_name, self.own_features or [])

    @cached_property
    def _top_pass(self) -> TopPass:
        """The passes down to this process's features."""
        graph = self._above
        with _hooks_at_rest(self.own_features or []):
            return read_tops(list(self.by_name.values()), graph, graph.frontier, [], graph.leaves)

    def combined(self, weights: Tensor) -> list[Tensor]:
        """The sum over tasks, under weights (T,), of this process's gradients at each tensor of its features."""
        return [top.combine(weights) for top in self._top_pass.tops]

    @property
    def own_grads(self) -> list[tuple[Tensor, Tensor]]:
        """Parameters above the features with their gradients, each the sum over the tasks."""
        grads = [(self._above.leaves[key], grad) for key, grad in self._top_pass.leaves.items()]
        total = torch.stack(list(self.by_name.values())).sum()
        return without_below(grads, total, self.own_features or [], self.combined(torch.ones_like(self.losses)))

    def _check_reach(self) -> None:
        reaching = self._reaching()
        flat = [name for number, name in enumerate(self.names) if number not in reaching and self._is_own(name)]
        if flat:
            message = (
                f"Task '{flat[0]}' has a loss that does not depend on the shared parameters. Leave it out of this "
                "call and add its own backward, or check which parameters are passed as shared."
            )
            raise RequestError(message)

    def _is_own(self, name: str) -> bool:
        return self.setting is None or name in self.setting.own

    def _reaching(self) -> set[int]:
        graph = self.passes.graph
        mask = 0
        for key in self.passes.shared:
            mask |= graph.leaf_reached_by.get(key, 0)
        return {number for number in range(len(self.names)) if mask >> number & 1}


def _side_by_side(saliency: Sequence[Tensor]) -> Tensor:
    """Gradients at all tensors of the features, (T, numbers); complex ones as pairs."""
    parts = [as_real(part) for part in saliency]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


@contextmanager
def _hooks_at_rest(features: Sequence[Tensor]) -> Iterator[None]:
    """Hooks on the features run once, in the backward through the trunk: some of them gather a sharded trunk."""
    hooks = [tensor._backward_hooks for tensor in features if tensor._backward_hooks]
    kept = [dict(found) for found in hooks]
    for found in hooks:
        found.clear()
    try:
        yield
    finally:
        for found, before in zip(hooks, kept, strict=True):
            found.update(before)


def without_below(
    grads: list[tuple[Tensor, Tensor]], total: Tensor, features: Sequence[Tensor], at_features: Sequence[Tensor]
) -> list[tuple[Tensor, Tensor]]:
    """Gradients of parameters above the features, without what came to them through the features.

    Only tied weights lie on both sides: a plain gradient of theirs goes on through the trunk.

    Args:
        grads: parameters with the gradients of a sum of losses.
        total: that sum.
        features: the shared features.
        at_features: its gradients there.
    """
    below = _below(features)
    tied = [leaf for leaf, _ in grads if id(leaf) in below]
    if not tied:
        return grads
    whole = torch.autograd.grad(total, tied, retain_graph=True)
    through = torch.autograd.grad(features, tied, at_features, retain_graph=True)
    found = {id(leaf): all_of_it - part for leaf, all_of_it, part in zip(tied, whole, through, strict=True)}
    return [(leaf, found.get(id(leaf), grad)) for leaf, grad in grads]


def _below(features: Sequence[Tensor]) -> set[int]:
    """Ids of the parameters that the features depend on."""
    found: set[int] = set()
    seen: set[Node] = set()
    stack = [tensor.grad_fn for tensor in features]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None:
            found.add(id(variable))
        stack.extend(below for below, _ in node.next_functions)
    return found
