"""What a route scores experts by."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from motet._errors import RequestError, suggest
from motet.models.blocks._stacked import StackedLinear, pick

READS = ("input", "task", "both")


class Gate(nn.Module):
    """Scores (O, B, E) of E experts for each of O outputs.

    It reads the `input` (each output has a network of its own), the `task` alone (a table (O, E), the same for every
    row), or `both`: one network for all outputs over the input and the output's code, whose first layer is W x + c_o.
    There is no norm between the scores and what a route makes of them.

    Args:
        num_outputs: O.
        num_experts: E.
        inputs: size of the input.
        reads: `input`, `task` or `both`.
        hidden: sizes of hidden layers, each with a ReLU.
        bias: whether the linear layers of `input` have one.
        spread: weights begin uniform within ± this; None means ± 1/√inputs.

    Raises:
        RequestError: an unknown `reads`.
    """

    def __init__(
        self,
        num_outputs: int,
        num_experts: int,
        inputs: int,
        *,
        reads: str = "input",
        hidden: Sequence[int] = (),
        bias: bool = False,
        spread: float | None = None,
    ) -> None:
        super().__init__()
        if reads not in READS:
            message = f"The gate is to read '{reads}'; it reads the input, the task or both.{suggest(reads, READS)}"
            raise RequestError(message)
        self.reads = reads
        self.num_outputs = num_outputs
        self.num_experts = num_experts
        self.inputs, self.hidden, self.bias = inputs, list(hidden), bias
        sizes = [inputs, *hidden, num_experts]
        pairs = [] if reads == "task" else list(pairwise(sizes))
        if reads == "input":
            layers = [StackedLinear(num_outputs, *pair, bias=bias) for pair in pairs]
        else:  # the output's code is the first layer's bias
            layers = [StackedLinear(1, *pair, bias=number > 0) for number, pair in enumerate(pairs)]
        self.layers = nn.ModuleList(layers)
        width = sizes[1] if reads == "both" else num_experts
        self.table = None if reads == "input" else nn.Parameter(torch.zeros(num_outputs, 1, width))
        if spread is not None:
            for parameter in self.parameters():
                nn.init.uniform_(parameter, -spread, spread)
        elif self.table is not None:
            nn.init.normal_(self.table, std=0.02)

    def fresh(self, num_outputs: int, num_experts: int) -> "Gate":
        """A new gate of the same kind and sizes, for other outputs and experts."""
        return Gate(num_outputs, num_experts, self.inputs, reads=self.reads, hidden=self.hidden, bias=self.bias)

    def forward(self, context: Tensor | None, outputs: Sequence[int] | None = None) -> Tensor:
        """Scores (O, B, E) from (B, inputs) or (O, B, inputs); (O, 1, E) from the task alone."""
        if self.reads == "task" and self.table is not None:
            return pick(self.table, outputs)
        if context is None:
            message = f"A gate that reads the {self.reads} got none. Give the features that it is to read."
            raise RequestError(message)
        values = context
        for number, layer in enumerate(self.layers):
            values = self._layer(number, layer, functional.relu(values) if number else values, outputs)
        return values

    def _layer(self, number: int, layer: Any, values: Tensor, outputs: Sequence[int] | None) -> Tensor:
        if self.table is None:
            return layer(values, outputs)
        # One network for all outputs: their rows are one batch.
        shape = values.shape[:-1]
        scored = layer(values.reshape(-1, values.shape[-1])).view(*shape, layer.weight.shape[-1])
        return scored if number else scored + pick(self.table, outputs)
