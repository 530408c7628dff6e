"""Many small linear layers as one tensor and one batched product."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from motet.models.blocks._groups import Groups, grouped_product


class StackedLinear(nn.Module):
    """N linear layers of one shape in one batched product, or in one grouped product over rows sorted by layer.

    Args:
        num_layers: N, how many.
        inputs: size of the input.
        outputs: size of the output.
        bias: whether each layer has one.

    Cost: B · N · inputs · outputs multiplications; with `chosen`, only of the chosen layers.
    """

    def __init__(self, num_layers: int, inputs: int, outputs: int, *, bias: bool = True) -> None:
        super().__init__()
        bound = inputs**-0.5
        self.weight = nn.Parameter(torch.empty(num_layers, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(num_layers, 1, outputs).uniform_(-bound, bound)) if bias else None

    def forward(self, inputs: Tensor, chosen: Sequence[int] | None = None) -> Tensor:
        """Maps (B, inputs), read by every layer, or (N, B, inputs), one for each, to (N, B, outputs)."""
        return _product(inputs, pick(self.weight, chosen), None if self.bias is None else pick(self.bias, chosen))

    def slim(self, inputs: Tensor, size: int, chosen: Sequence[int] | None = None) -> Tensor:
        """The same with the first inputs of each layer, as many as arrive, and the first outputs: (N, B, size)."""
        weight = pick(self.weight, chosen)[:, : inputs.shape[-1], :size]
        return _product(inputs, weight, None if self.bias is None else pick(self.bias, chosen)[..., :size])

    def grouped(self, rows: Tensor, groups: Groups) -> Tensor:
        """Maps rows (R, inputs), sorted by layer, each through its own layer to (R, outputs)."""
        products = grouped_product(rows, self.weight, groups)
        return products if self.bias is None else products.add_(self.bias[groups.members, 0])


def _product(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    rows = inputs.expand(weight.shape[0], *inputs.shape) if inputs.ndim == 2 else inputs
    return torch.bmm(rows, weight) if bias is None else torch.baddbmm(bias, rows, weight)


def pick(stack: Tensor, chosen: Sequence[int] | None) -> Tensor:
    """The chosen entries of the first axis; a view where they lie side by side."""
    if chosen is None or list(chosen) == list(range(len(stack))):  # a view of all would still cost a copy backward
        return stack
    first, count = chosen[0], len(chosen)
    if list(chosen) == list(range(first, first + count)):
        return stack.narrow(0, first, count)
    return stack[list(chosen)]
