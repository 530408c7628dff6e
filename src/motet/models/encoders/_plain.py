"""The encoder of a linear or quadratic model: a row as it is."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from motet.models.encoders._tabular import check_columns

FAR_OUT = 10.0  # standard deviations from the mean, at which a number is cut off: a line would follow it anywhere


class PlainEncoder(nn.Module):
    """Rows of a table as a linear model reads them: numbers, a flag where one is missing, one place a level.

    Choose it for targets that go on beyond what training rows had, or where rows are few: with linear heads there is
    no layer that could bend. It has no parameters. Products of two numbers each, squares among them, may follow at the
    end of a row: linear heads on these are a quadratic response surface.

    Args:
        num_numbers: number columns; their centre and scale are set by `standardise`.
        category_sizes: number of codes of each category column.
        products: whether the products follow.

    Raises:
        RequestError: no number and no category column.

    Cost: B · width numbers, where width is 2 · num_numbers + the sum of `category_sizes`, and with products
        num_numbers · (num_numbers + 1) / 2 more.
    """

    def __init__(self, num_numbers: int, category_sizes: Sequence[int], *, products: bool = False) -> None:
        super().__init__()
        check_columns(num_numbers + len(category_sizes))
        self.category_sizes = tuple(category_sizes)
        self.num_plain = 2 * num_numbers + sum(category_sizes)
        self.width = self.num_plain + (num_numbers * (num_numbers + 1) // 2 if products else 0)
        self.pairs: Tensor
        self.register_buffer("pairs", torch.triu_indices(num_numbers, num_numbers if products else 0))
        self.centre: Tensor
        self.inverse: Tensor
        self.register_buffer("centre", torch.zeros(num_numbers))
        self.register_buffer("inverse", torch.ones(num_numbers))

    @torch.no_grad()
    def standardise(self, numbers: Tensor) -> None:
        """Sets each column's centre to its mean and its scale to its standard deviation over (N, F) training rows."""
        wide = numbers.double()
        centre = wide.nanmean(dim=0).nan_to_num()
        spread = (wide - centre).square().nanmean(dim=0).nan_to_num().sqrt()
        self.centre.copy_(centre)
        self.inverse.copy_(torch.where(spread > 0, 1.0 / spread, 0.0))

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Maps `numbers` (B, Fn) float and `categories` (B, Fc) int64 to features (B, width)."""
        parts: list[Tensor] = []
        products: list[Tensor] = []
        if len(self.centre):
            numbers = inputs["numbers"]
            missing = torch.isnan(numbers)
            scaled = ((numbers - self.centre) * self.inverse).clamp(-FAR_OUT, FAR_OUT)
            known = torch.where(missing, 0.0, scaled)
            parts += [known, missing.to(scaled.dtype)]
            if self.pairs.shape[1]:
                products.append(known[:, self.pairs[0]] * known[:, self.pairs[1]])
        for column, size in enumerate(self.category_sizes):
            codes = inputs["categories"][:, column, None]
            parts.append((codes == torch.arange(size, device=codes.device)).float())
        return torch.cat([*parts, *products], dim=1)
