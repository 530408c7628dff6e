"""Layers of which only the first channels may run."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from motet.models.blocks._norms import StackedLayerNorm
from motet.models.blocks._stacked import StackedLinear


class SlimLayer(nn.Module):
    """N layers of linear, layer norm and ReLU, run with the first inputs and the first outputs of each.

    A narrower layer is a view of the wider one, so that all widths share their weights; the norm looks at the channels
    that run and at no others, and its scale and shift belong to the width.

    Args:
        num_layers: N, how many.
        inputs: size of the input at full width.
        sizes: size of the output at each width, increasing.

    Cost: B · N · inputs · outputs multiplications, of what runs.

    Source: Yu et al., Slimmable Neural Networks, ICLR 2019, switchable norms. Departure: a layer norm over the channels
        that run in the place of a batch norm, so that there are no statistics to keep for each width.
    """

    def __init__(self, num_layers: int, inputs: int, sizes: Sequence[int]) -> None:
        super().__init__()
        self.sizes = list(sizes)
        self.linear = StackedLinear(num_layers, inputs, sizes[-1])
        self.norms = nn.ModuleList(StackedLayerNorm(num_layers, size) for size in sizes)

    def forward(self, inputs: Tensor, width: int, chosen: Sequence[int] | None = None) -> Tensor:
        """Maps (B, c), read by every layer, or (N, B, c), one for each, to (N, B, size) at a width, by its number."""
        return functional.relu(self.norms[width](self.linear.slim(inputs, self.sizes[width], chosen), chosen))
