"""The encoder of table rows: numbers and categories to one feature vector a row."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from motet._errors import RequestError

FAR_OUT = 4.0  # spreads from the median, at which a standardised number is cut off
FAR_BELOW = -1e30  # below every edge: all codes of a missing number are zero


class PiecewiseLinear(nn.Module):
    """Numbers to piecewise-linear codes over quantile bins, and from there to one embedding a column.

    A number x in column f becomes e_t = clip((x - b_t-1) / (b_t - b_t-1), 0, 1) for the column's bins t: a soft
    thermometer, which lets a linear layer bend at every edge. A missing number is all zeros and sets a flag. Each
    column then has its own linear map to `dim` numbers with a ReLU.

    Args:
        edges: (F, bins + 1) increasing bin edges of each column in the first `count + 1` places, +inf after.
        dim: size of a column's embedding.

    Source: Gorishniy et al., On Embeddings for Numerical Features in Tabular Deep Learning, NeurIPS 2022, equation 1.
        Departure: all bins are clipped on both sides, so that a number far outside the training range cannot
        dominate; the flag for missing numbers is ours.
    """

    def __init__(self, edges: Tensor, *, dim: int) -> None:
        super().__init__()
        num_columns, num_edges = edges.shape
        low, high = edges[:, :-1], edges[:, 1:]
        used = torch.isfinite(high) & (high > low)
        width = torch.where(used, high - low, torch.ones_like(low))
        self.low: Tensor
        self.inverse_width: Tensor
        self.register_buffer("low", torch.where(used, low, torch.zeros_like(low)))
        self.register_buffer("inverse_width", torch.where(used, 1.0 / width, torch.zeros_like(low)))
        bound = (num_edges - 1 + 1) ** -0.5
        self.weight = nn.Parameter(torch.empty(num_columns, num_edges, dim).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(num_columns, dim))

    def forward(self, numbers: Tensor) -> Tensor:
        """Maps (B, F) numbers, NaN where missing, to (B, F, dim)."""
        missing_FB = torch.isnan(numbers).T
        known_FB = torch.where(missing_FB, FAR_BELOW, numbers.T)
        # (F, B, bins), the order of the product below; in place, for they take half of the encoder's time.
        codes = (known_FB.unsqueeze(-1) - self.low.unsqueeze(1)).mul_(self.inverse_width.unsqueeze(1)).clamp_(0.0, 1.0)
        flags = missing_FB.unsqueeze(-1).to(codes.dtype)
        rest = torch.addcmul(self.bias.unsqueeze(1), flags, self.weight[:, -1:])
        embedded = torch.bmm(codes, self.weight[:, :-1]) + rest
        return functional.relu(embedded).transpose(0, 1)


class Standardised(nn.Module):
    """Numbers themselves, (x - median) / spread cut off at ±4, and zero where missing.

    Beside codes, which bend at every edge, they give a network what is smooth in a column without a bin to learn it in.
    The spread is half of what lies between the 16% and the 84% quantile, one standard deviation of a normal column,
    or a quarter of the range where those are the same; so a number far outside can do no more than one at the cut.

    Args:
        edges: (F, bins + 1) as `bin_edges` gives them.
    """

    def __init__(self, edges: Tensor) -> None:
        super().__init__()
        centre, inverse = torch.zeros(len(edges)), torch.zeros(len(edges))
        for column, row in enumerate(edges):
            known = row[torch.isfinite(row)]
            if len(known) > 1 and known[-1] > known[0]:
                low, centre[column], high = torch.quantile(known, torch.tensor([0.16, 0.5, 0.84]))
                spread = (high - low) / 2 if high > low else (known[-1] - known[0]) / 4
                inverse[column] = 1.0 / spread
        self.centre: Tensor
        self.inverse: Tensor
        self.register_buffer("centre", centre)
        self.register_buffer("inverse", inverse)

    def forward(self, numbers: Tensor) -> Tensor:
        """Maps (B, F) numbers, NaN where missing, to (B, F)."""
        scaled = ((numbers - self.centre) * self.inverse).clamp(-FAR_OUT, FAR_OUT)
        return torch.where(torch.isnan(numbers), 0.0, scaled)


class ResidualBlock(nn.Module):
    """x + W2 dropout(relu(W1 norm(x))): the pre-norm residual block of a tabular ResNet."""

    def __init__(self, width: int, *, expansion: float, dropout: float) -> None:
        super().__init__()
        hidden = int(width * expansion)
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, hidden)
        self.contract = nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Tensor) -> Tensor:
        """Maps (B, width) to (B, width)."""
        return features + self.contract(self.dropout(functional.relu(self.expand(self.norm(features)))))


class TabularEncoder(nn.Module):
    """Rows of a table to features (B, width): embedded numbers and categories, then a residual MLP.

    Every category column shares one stacked embedding table; numbers pass through `PiecewiseLinear`, and join its codes
    as they are, `Standardised`. Nothing in it looks at other rows, so a row's features do not depend on its batch.

    Args:
        edges: (Fn, bins + 1) bin edges as `bin_edges` gives them; Fn may be 0.
        category_sizes: number of codes of each category column.
        width: size of the features.
        num_blocks: residual blocks.
        number_dim: embedding size of a number column.
        category_dim: embedding size of a category column.
        dropout: in the residual blocks.
        values: whether the numbers join their codes; without them, smooth targets are learned several times as slowly.

    Raises:
        RequestError: no number and no category column.

    Cost: one pass is about B · (width · (Fn · number_dim + Fc · category_dim) + 2 · expansion · num_blocks · width²)
        multiplications.

    Source: the residual MLP of Gorishniy et al., Revisiting Deep Learning Models for Tabular Data, NeurIPS 2021, with
        layer norm for batch norm, so that a row alone and in a batch give the same.
    """

    def __init__(
        self,
        edges: Tensor,
        category_sizes: Sequence[int],
        *,
        width: int = 256,
        num_blocks: int = 2,
        number_dim: int = 16,
        category_dim: int = 16,
        dropout: float = 0.1,
        values: bool = True,
    ) -> None:
        super().__init__()
        num_numbers, num_categories = edges.shape[0], len(category_sizes)
        check_columns(num_numbers + num_categories)
        self.width = width
        self.numbers = PiecewiseLinear(edges, dim=number_dim) if num_numbers else None
        self.values = Standardised(edges) if num_numbers and values else None
        self.categories = nn.Embedding(sum(category_sizes), category_dim) if num_categories else None
        self.category_starts: Tensor
        self.register_buffer("category_starts", category_starts(category_sizes))
        if self.categories is not None:
            nn.init.normal_(self.categories.weight, std=category_dim**-0.5)
        per_number = number_dim + (self.values is not None)
        self.project = nn.Linear(num_numbers * per_number + num_categories * category_dim, width)
        self.blocks = nn.Sequential(*(ResidualBlock(width, expansion=2.0, dropout=dropout) for _ in range(num_blocks)))
        self.norm = nn.LayerNorm(width)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Maps `numbers` (B, Fn) float and `categories` (B, Fc) int64 to features (B, width)."""
        parts: list[Tensor] = []
        if self.numbers is not None:
            parts.append(self.numbers(inputs["numbers"]).flatten(1))
        if self.values is not None:
            parts.append(self.values(inputs["numbers"]))
        if self.categories is not None:
            parts.append(self.categories(inputs["categories"] + self.category_starts).flatten(1))
        features = self.blocks(self.project(torch.cat(parts, dim=1)))
        return functional.relu(self.norm(features))


def check_columns(num_columns: int) -> None:
    """Refuses a table without a feature.

    Raises:
        RequestError: see above.
    """
    if num_columns == 0:
        message = (
            "The table has no feature left: every column is a target, constant, an identifier or ignored. "
            "A model needs at least one feature. Give a role to a column, for example --role NAME=category."
        )
        raise RequestError(message)


def category_starts(sizes: Sequence[int]) -> Tensor:
    """Where each category column's codes begin in the one table that they share."""
    return torch.tensor([0, *np.cumsum(sizes)[:-1].tolist()] if len(sizes) else [], dtype=torch.long)


def bin_edges(numbers: np.ndarray, *, num_bins: int = 48, max_rows: int = 100_000) -> Tensor:
    """Quantile bin edges of each column, from training rows.

    Args:
        numbers: (N, F) float32, NaN where missing.
        num_bins: bins a column at most; a column with fewer distinct values gets one bin between neighbours.
        max_rows: more rows than these are thinned evenly first.

    Returns:
        (F, num_bins + 1) float32; unused places are +inf.
    """
    rows = numbers[:: max(1, len(numbers) // max_rows)]
    edges = np.full((numbers.shape[1], num_bins + 1), np.inf, dtype=np.float32)
    for column in range(numbers.shape[1]):
        known = rows[:, column][np.isfinite(rows[:, column])]
        if known.size == 0:
            continue
        distinct = np.unique(known)
        if distinct.size > num_bins + 1:
            distinct = np.unique(np.quantile(known, np.linspace(0.0, 1.0, num_bins + 1)).astype(np.float32))
        edges[column, : distinct.size] = distinct
    return torch.from_numpy(edges)
