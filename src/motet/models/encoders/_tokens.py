"""The encoder of table rows for architectures that look at columns one by one: a token for each column."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from motet.models.encoders._tabular import PiecewiseLinear, category_starts, check_columns


class TokenEncoder(nn.Module):
    """Rows of a table to tokens (B, S, width), one for each column: numbers first, then categories.

    For sharing architectures that read tokens, such as `MultiTabNet`; `TabularEncoder` mixes the columns into one
    vector instead. A number's token is its `PiecewiseLinear` embedding, in which a missing number is all zeros and a
    flag; a category's is a row of one stacked table, in which missing and unseen values have codes of their own.

    Args:
        edges: (Fn, bins + 1) bin edges as `bin_edges` gives them; Fn may be 0.
        category_sizes: number of codes of each category column.
        width: size of a token.

    Raises:
        RequestError: no number and no category column.

    Cost: B · Fn · bins · width multiplications.

    Source: the tokens of Sinodinos et al., MultiTab, AAAI 2026, and of Gorishniy et al., Revisiting Deep Learning
        Models for Tabular Data, NeurIPS 2021. Departure: piecewise-linear codes where those multiply a number by one
        learned vector, so that the first attention layer sees more than its size; missing numbers are ours.
    """

    def __init__(self, edges: Tensor, category_sizes: Sequence[int], *, width: int = 32) -> None:
        super().__init__()
        num_numbers, num_categories = edges.shape[0], len(category_sizes)
        check_columns(num_numbers + num_categories)
        self.width = width
        self.num_tokens = num_numbers + num_categories
        self.numbers = PiecewiseLinear(edges, dim=width) if num_numbers else None
        self.categories = nn.Embedding(sum(category_sizes), width) if num_categories else None
        self.category_starts: Tensor
        self.register_buffer("category_starts", category_starts(category_sizes))
        if self.categories is not None:
            nn.init.normal_(self.categories.weight, std=width**-0.5)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Maps `numbers` (B, Fn) float and `categories` (B, Fc) int64 to tokens (B, Fn + Fc, width)."""
        parts: list[Tensor] = []
        if self.numbers is not None:
            parts.append(self.numbers(inputs["numbers"]))
        if self.categories is not None:
            parts.append(self.categories(inputs["categories"] + self.category_starts))
        return torch.cat(parts, dim=1)
