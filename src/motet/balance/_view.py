"""What a method sees of one step; each part is computed only when it is asked for."""

from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor

from motet._errors import RequestError
from motet.balance._passes import Passes


class View:
    """One step's losses and their gradients.

    Args:
        losses: a scalar for each of T tasks.
        shared: parameters at which the tasks' gradients are compared, or None.
        features: shared features at which they are compared instead, one tensor or several, or None.
        method: the method's name, for messages.
    """

    def __init__(
        self,
        losses: Mapping[str, Tensor],
        shared: Sequence[Tensor] | None,
        features: Sequence[Tensor] | None,
        *,
        method: str,
    ) -> None:
        self.by_name = dict(losses)
        self.names = tuple(losses)
        self.shared = shared
        self.features = features
        self.method = method

    @cached_property
    def losses(self) -> Tensor:
        """The losses' values, (T,) float64, without a graph."""
        return torch.stack([loss.detach().reshape(()) for loss in self.by_name.values()]).double()

    @cached_property
    def gramian(self) -> Tensor:
        """Inner products (T, T) of the tasks' gradients, float64."""
        if self.features is not None:
            rows = self.jacobian
            return (rows @ rows.T).double() if rows.dtype == torch.float64 else (rows.float() @ rows.float().T).double()
        return self._checked(self.passes.gramian())

    @cached_property
    def jacobian(self) -> Tensor:
        """The tasks' gradients as rows: (T, P) at the parameters, or (T, numbers of the features)."""
        if self.features is not None:
            parts = [part.flatten(1) for part in self.saliency]
            return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        return self.passes.jacobian()

    @cached_property
    def saliency(self) -> list[Tensor]:
        """Every task's gradient (T, B, ...) at each tensor of the features."""
        return self._feature_pass[0]

    @cached_property
    def passes(self) -> Passes:
        """The passes to the shared parameters."""
        if self.shared is None:
            message = (
                f"{self.method} compares the tasks' gradients and was told of no place to do so. Pass "
                "shared=trunk.parameters(), or features=z for the cheap way."
            )
            raise RequestError(message)
        return Passes(self.by_name, self.shared)

    @cached_property
    def _feature_pass(self) -> tuple[list[Tensor], dict[int, tuple[Tensor, Tensor]]]:
        """The saliency, and the gradients of parameters above the features: heads', mostly."""
        features = list(self.features or [])
        rows: list[list[Tensor]] = []
        own: dict[int, tuple[Tensor, Tensor]] = {}
        for loss in self.by_name.values():
            leaves = _above(loss, features)
            grads = torch.autograd.grad(loss, [*features, *leaves], retain_graph=True, allow_unused=True)
            rows.append([
                torch.zeros_like(tensor) if grad is None else grad
                for tensor, grad in zip(features, grads[: len(features)], strict=True)
            ])  # fmt: skip
            for leaf, grad in zip(leaves, grads[len(features) :], strict=True):
                if grad is not None:
                    own[id(leaf)] = (leaf, own[id(leaf)][1] + grad if id(leaf) in own else grad)
        return [torch.stack([row[place] for row in rows]).detach() for place in range(len(features))], own

    @property
    def own_grads(self) -> list[tuple[Tensor, Tensor]]:
        """Parameters above the features with their gradients, each the sum over the tasks."""
        return list(self._feature_pass[1].values())

    def _checked(self, gramian: Tensor) -> Tensor:
        flat = [self.names[number] for number in range(len(self.names)) if number not in self._reaching()]
        if flat:
            message = (
                f"Task '{flat[0]}' has a loss that does not depend on the shared parameters. Leave it out of this "
                "call and add its own backward, or check which parameters are passed as shared."
            )
            raise RequestError(message)
        return gramian

    def _reaching(self) -> set[int]:
        graph = self.passes.graph
        mask = 0
        for key in self.passes.shared:
            mask |= graph.leaf_reached_by.get(key, 0)
        return {number for number in range(len(self.names)) if mask >> number & 1}


def _above(loss: Tensor, features: Sequence[Tensor]) -> list[Tensor]:
    """Parameters on the way from the loss down to the features, not below them."""
    stops = {tensor.grad_fn for tensor in features if tensor.grad_fn is not None}
    ends = {id(tensor) for tensor in features}
    leaves: dict[int, Tensor] = {}
    seen, stack = set(stops), [loss.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None and id(variable) not in ends:
            leaves[id(variable)] = variable
        stack.extend(below for below, _ in node.next_functions)
    return list(leaves.values())
