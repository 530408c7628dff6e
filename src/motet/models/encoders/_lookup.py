"""An encoder of table rows that looks most of it up: a vector for each value, and for each cross of a few columns."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from motet.models.encoders._tabular import ResidualBlock, category_starts, check_columns

MISSING, FIRST = 0, 1  # codes of a number: none; below the first edge, and from there on one more at each edge


class LookupEncoder(nn.Module):
    """Rows of a table to features (B, width): columns and chosen crosses of columns are codes that look up vectors.

    Choose it where rows have to be answered fast and there are many to learn from: what a row costs is a narrow
    residual MLP, and what the table knows lies in the vectors, which cost nothing however many they are. A number's
    code is how many edges it has reached; a cross of columns has one code for each combination of theirs. In training
    the vectors of a row's crosses are left out at random, so that the rest learns to do without: a combination with few
    rows is known by heart soon. Vectors of crosses start at zero.

    Args:
        edges: (Fn, bins + 1) bin edges as `bin_edges` gives them, +inf in unused places; Fn may be 0.
        number_sizes: number of codes of each number column, as `number_sizes` gives them.
        category_sizes: number of codes of each category column.
        crosses: columns of each cross, by place: numbers before categories.
        width: size of the features.
        num_blocks: residual blocks.
        dim: size of a column's vector.
        cross_dim: size of a cross's vector.
        cross_dropout: share of the crosses' vectors that are left out in training.

    Raises:
        RequestError: no column.

    Cost: one pass is about B · width · (Fn + (Fn + Fc) · dim + crosses · cross_dim + 4 · num_blocks · width)
        multiplications.

    Source: crosses that look up a vector of their own are those of Cheng et al., Wide and Deep Learning for
        Recommender Systems, DLRS 2016, section 3. Departures: they are found from the data, take part in the network as
        the columns' own vectors do, and are never hashed.
    """

    def __init__(
        self,
        edges: Tensor,
        number_sizes: Sequence[int],
        category_sizes: Sequence[int],
        crosses: Sequence[Sequence[int]] = (),
        *,
        width: int = 128,
        num_blocks: int = 1,
        dim: int = 8,
        cross_dim: int = 6,
        cross_dropout: float = 0.3,
    ) -> None:
        super().__init__()
        sizes = [*number_sizes, *category_sizes]
        check_columns(len(sizes))
        self.width = width
        self.cross_dropout = cross_dropout
        self.edges: Tensor
        self.register_buffer("edges", edges.contiguous())
        middle, reach = _span(edges)
        self.middle: Tensor
        self.reach: Tensor
        self.register_buffer("middle", middle)
        self.register_buffer("reach", reach)
        self.columns = nn.Embedding(sum(sizes), dim)
        nn.init.normal_(self.columns.weight, std=dim**-0.5)
        self.starts: Tensor
        self.register_buffer("starts", category_starts(sizes), persistent=False)
        members, strides, starts = _crossed(crosses, sizes)
        self.members: Tensor
        self.strides: Tensor
        self.cross_starts: Tensor
        self.register_buffer("members", members, persistent=False)
        self.register_buffer("strides", strides, persistent=False)
        self.register_buffer("cross_starts", starts[:-1], persistent=False)
        self.crosses = nn.Embedding(int(starts[-1]), cross_dim) if crosses else None
        if self.crosses is not None:
            nn.init.zeros_(self.crosses.weight)
        inputs = len(number_sizes) + len(sizes) * dim + len(crosses) * cross_dim
        self.project = nn.Linear(inputs, width)
        self.blocks = nn.Sequential(*(ResidualBlock(width, expansion=2.0, dropout=0.0) for _ in range(num_blocks)))
        self.norm = nn.LayerNorm(width)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Maps `numbers` (B, Fn) float and `categories` (B, Fc) int64 to features (B, width).

        `bins` (B, Fn) int64, where they come along, are taken for the numbers' codes: an exported graph finds them by
        means of its own.
        """
        codes: list[Tensor] = []
        parts: list[Tensor] = []
        if len(self.edges):
            codes.append(inputs["bins"] if "bins" in inputs else self.bins(inputs["numbers"]))
            parts.append(self._lines(inputs["numbers"]))
        if "categories" in inputs:
            codes.append(inputs["categories"])
        codes_BF = torch.cat(codes, dim=1)
        parts.append(self.columns(codes_BF + self.starts).flatten(1))
        if self.crosses is not None:
            parts.append(self._crosses(codes_BF, self.crosses))
        return functional.relu(self.norm(self.blocks(self.project(torch.cat(parts, dim=1)))))

    def bins(self, numbers: Tensor) -> Tensor:
        """The codes (B, Fn) int64 of numbers (B, Fn), NaN where missing."""
        reached = torch.searchsorted(self.edges, numbers.T.contiguous(), right=True).T
        return torch.where(torch.isnan(numbers), MISSING, reached + FIRST)

    def _lines(self, numbers: Tensor) -> Tensor:
        """Numbers from -1 at the first edge to 1 at the last, cut off there, 0 where missing: steps have no slope."""
        known = torch.where(torch.isnan(numbers), self.middle, numbers)
        return ((known - self.middle) / self.reach).clamp(-1.0, 1.0)

    def _crosses(self, codes_BF: Tensor, table: nn.Embedding) -> Tensor:
        places = (codes_BF[:, self.members] * self.strides).sum(dim=2) + self.cross_starts
        found = table(places)
        if self.training and self.cross_dropout > 0:
            kept = torch.rand(found.shape[:2], device=found.device) >= self.cross_dropout
            found = found * (kept / (1.0 - self.cross_dropout)).unsqueeze(2).to(found.dtype)
        return found.flatten(1)


def _span(edges: Tensor) -> tuple[Tensor, Tensor]:
    """The middle (Fn,) between each column's first and last edge, and half of the way between them."""
    low = edges[:, 0].nan_to_num(posinf=0.0)
    high = torch.where(torch.isfinite(edges), edges, low[:, None]).amax(dim=1)
    half = 0.5 * high - 0.5 * low
    return 0.5 * low + 0.5 * high, torch.where(half > 0, half, torch.ones_like(half))


def number_sizes(edges: Tensor) -> tuple[int, ...]:
    """How many codes each number column has: missing, below the first edge, and one from each edge on."""
    return tuple(int(count) + 2 for count in torch.isfinite(edges).sum(dim=1))


def _crossed(crosses: Sequence[Sequence[int]], sizes: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Columns and strides (X, most columns) of each cross, filled up with stride 0, and where their codes begin."""
    most = max(map(len, crosses), default=0)
    members = torch.zeros(len(crosses), most, dtype=torch.long)
    strides = torch.zeros(len(crosses), most, dtype=torch.long)
    cells = []
    for place, cross in enumerate(crosses):
        stride = 1
        for number, column in enumerate(cross):
            members[place, number], strides[place, number] = column, stride
            stride *= sizes[column]
        cells.append(stride)
    starts = torch.tensor([0, *torch.tensor(cells, dtype=torch.long).cumsum(0).tolist()], dtype=torch.long)
    return members, strides, starts
