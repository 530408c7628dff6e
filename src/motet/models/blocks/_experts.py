"""Experts: many small networks of one shape."""

import copy
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from motet._errors import RequestError, suggest
from motet.models.blocks._groups import Groups
from motet.models.blocks._norms import NORMS
from motet.models.blocks._stacked import StackedLinear

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
    "silu": functional.silu,
    "tanh": torch.tanh,
    "none": lambda values: values,
}


class Experts(nn.Module):
    """E networks of one shape, each layer one weight tensor (E, in, out) and one batched product.

    A layer is linear, norm, activation. All experts read the same rows, or each a stream of its own.

    Args:
        num_experts: E.
        inputs: size of the input.
        dims: sizes of the layers.
        norm: `none`, `layer`, or `batch`, over the rows of the batch and for each expert alone.
        activation: `relu`, `gelu`, `silu`, `tanh` or `none`.
        last: whether the last layer has norm and activation too.

    Raises:
        RequestError: no expert, no layer, or an unknown norm or activation.

    Cost: B · E · Σ in · out multiplications; with `chosen`, or for sorted rows, only those of the chosen experts.
    """

    def __init__(
        self,
        num_experts: int,
        inputs: int,
        dims: Sequence[int],
        *,
        norm: str = "none",
        activation: str = "relu",
        last: bool = True,
    ) -> None:
        super().__init__()
        _check(num_experts, dims, norm, activation)
        self.num_experts = num_experts
        self.inputs = inputs
        self.width = dims[-1]
        self.num_weights = sum(a * b for a, b in pairwise([inputs, *dims]))  # of one expert
        self.activation = activation
        sizes = [inputs, *dims]
        self.layers = nn.ModuleList(StackedLinear(num_experts, *pair) for pair in pairwise(sizes))
        dressed = dims if last else dims[:-1]
        kinds = [None if norm == "none" else NORMS[norm](num_experts, size) for size in dressed]
        self.norms = nn.ModuleList(kind for kind in kinds if kind is not None)
        self.num_dressed = len(dressed)
        self.norm = norm

    def only(self, chosen: Sequence[int]) -> "Experts":
        """Copies of the chosen experts, by their numbers, and of no others."""
        found = copy.deepcopy(self)
        found.num_experts = len(chosen)
        for module in found.modules():  # each of their tensors has the experts on its first axis
            for name, tensor in list(module.named_parameters(recurse=False)):
                setattr(module, name, nn.Parameter(tensor.detach()[list(chosen)], tensor.requires_grad))
            for name, tensor in list(module.named_buffers(recurse=False)):
                setattr(module, name, tensor[list(chosen)])
        return found

    def fresh(self, num_experts: int) -> "Experts":
        """New experts of the same shape."""
        dims = [layer.weight.shape[-1] for layer in self.layers if isinstance(layer, StackedLinear)]
        last = self.num_dressed == len(dims)
        return Experts(num_experts, self.inputs, dims, norm=self.norm, activation=self.activation, last=last)

    @property
    def by_rows(self) -> bool:
        """Whether a row's output is its own affair, so that rows may be sent to different experts."""
        return self.norm != "batch" or not self.training

    def forward(self, inputs: Tensor, chosen: Sequence[int] | None = None) -> Tensor:
        """Maps (B, inputs), or (E, B, inputs) with a stream for each expert, to (E, B, width), of the chosen alone."""
        return self._run(inputs, lambda part, rows: part(rows, chosen))

    def grouped(self, rows: Tensor, groups: Groups) -> Tensor:
        """Maps rows (R, inputs), sorted by expert, each through its own expert to (R, width)."""
        return self._run(rows, lambda part, values: part.grouped(values, groups))

    def _run(self, values: Tensor, apply: Callable[[Any, Tensor], Tensor]) -> Tensor:
        for number, layer in enumerate(self.layers):
            values = apply(layer, values)
            if number < self.num_dressed:
                values = apply(self.norms[number], values) if len(self.norms) else values
                # In place on a product that nothing else holds: large stacks are bound by memory, not by multiplying.
                bare = self.activation == "relu" and not len(self.norms)
                values = values.relu_() if bare else ACTIVATIONS[self.activation](values)
        return values


def _check(num_experts: int, dims: Sequence[int], norm: str, activation: str) -> None:
    if num_experts < 1:
        message = f"{num_experts} experts were asked for; at least one is needed. Ask for one or more."
        raise RequestError(message)
    if not dims or min(dims) < 1:
        message = f"Layers of sizes {list(dims)} were given; experts need one layer or more. Give sizes such as (64,)."
        raise RequestError(message)
    for what, given, known in (("norm", norm, ["none", *NORMS]), ("activation", activation, list(ACTIVATIONS))):
        if given not in known:
            message = f"The {what} '{given}' was given; there is no such one.{suggest(given, known)}"
            raise RequestError(message)
