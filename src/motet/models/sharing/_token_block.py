"""One layer of attention over the tokens of a row."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from motet._errors import RequestError


class TokenBlock(nn.Module):
    """Tokens read each other within their row, then each passes a small network of its own; pre-norm, with residuals.

    With h = x + W_o softmax(q kᵀ / √d + mask) v for q, k, v linear in LN(x), the output is h + W₂ gelu(W₁ LN(h)).
    Only the tokens that `queries` names go on; all of them are read.

    Args:
        width: F, the size of a token.
        num_heads: of the attention; divides the width.
        hidden: size of the network's middle.
        dropout: on what attention and network add, and in the network's middle.

    Raises:
        RequestError: the heads do not divide the width.

    Cost: for Q queries and S tokens B · (Q · (2 · F² + 2 · F · hidden) + 2 · S · F² + 2 · Q · S · F) multiplications.
    """

    def __init__(self, width: int, *, num_heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        if num_heads < 1 or width % num_heads:
            message = (
                f"{num_heads} heads were asked for tokens of size {width}; the size must be a multiple of the heads. "
                "Change num_heads, or the width."
            )
            raise RequestError(message)
        self.width = width
        self.num_heads = num_heads
        self.norm_read = nn.LayerNorm(width)
        self.project = nn.Linear(width, 3 * width)
        self.join = nn.Linear(width, width)
        self.norm_think = nn.LayerNorm(width)
        self.expand = nn.Linear(width, hidden)
        self.contract = nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, queries: Sequence[int] | None = None, allowed: Tensor | None = None) -> Tensor:
        """Maps tokens (B, S, F) to those at the places `queries` (B, Q, F), or to all of them.

        Args:
            tokens: of each row.
            queries: places of the tokens that go on; None for all.
            allowed: (Q, S) bool, which query may read which token; None for all.
        """
        kept = tokens if queries is None else tokens[:, list(queries)]
        kept = kept + self.dropout(self.join(self._read(tokens, kept, queries, allowed)))
        middle = self.dropout(functional.gelu(self.expand(self.norm_think(kept))))
        return kept + self.dropout(self.contract(middle))

    def _read(self, tokens: Tensor, kept: Tensor, queries: Sequence[int] | None, allowed: Tensor | None) -> Tensor:
        normed = self.norm_read(tokens)
        if queries is None:
            parts = self.project(normed).chunk(3, dim=-1)
        else:  # the tokens that end here are read, and ask nothing
            weight, bias, size = self.project.weight, self.project.bias, self.width
            asked = functional.linear(normed[:, list(queries)], weight[:size], bias[:size])
            parts = (asked, *functional.linear(normed, weight[size:], bias[size:]).chunk(2, dim=-1))
        query, key, value = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in parts)
        read = functional.scaled_dot_product_attention(query, key, value, attn_mask=allowed)
        return read.transpose(1, 2).reshape(kept.shape)


def may_read(queries: Tensor, keys: Tensor, *, tasks_read_tasks: bool, features_read_tasks: bool) -> Tensor:
    """(Q, S) bool: which query token may read which token; a token always reads itself and every feature.

    Args:
        queries: (Q,) number of each query's task, -1 for a feature.
        keys: (S,) the same of what is read.
        tasks_read_tasks: whether a task's token reads the other tasks' tokens.
        features_read_tasks: whether a feature's token reads the tasks' tokens.
    """
    asks, reads = queries[:, None] >= 0, keys[None, :] >= 0
    others = asks & reads & (queries[:, None] != keys[None, :])
    allowed = torch.ones_like(others)
    if not tasks_read_tasks:
        allowed = allowed & ~others
    return allowed if features_read_tasks else allowed & ~(~asks & reads)
