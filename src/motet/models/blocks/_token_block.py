"""Attention and a small network over the tokens of a row, in one step."""

from collections.abc import MutableMapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from motet.models.blocks._attention import TokenAttention


class TokenBlock(nn.Module):
    """Queries read tokens of their row, then each passes a small network of its own; pre-norm, with residuals.

    With h = q + attention(LN(q), LN(x)) the output is h + W₂ gelu(W₁ LN(h)).

    Args:
        width: F, the size of a token.
        num_heads: of the attention; divides the width.
        hidden: size of the network's middle.
        dropout: on what attention and network add, and in the network's middle.

    Raises:
        RequestError: the heads do not divide the width.

    Cost: for Q queries and S tokens B · (Q · (2 · F² + 2 · F · hidden) + 2 · S · F² + 2 · Q · S · F) multiplications.
    """

    def __init__(self, width: int, *, num_heads: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm_read = nn.LayerNorm(width)
        self.attention = TokenAttention(width, num_heads)
        self.norm_think = nn.LayerNorm(width)
        self.expand = nn.Linear(width, hidden)
        self.contract = nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)
        self.register_load_state_dict_pre_hook(_from_one_projection)

    def forward(self, queries: Tensor, tokens: Tensor | None = None, allowed: Tensor | None = None) -> Tensor:
        """Maps queries (B, Q, F) to the same shape.

        Args:
            queries: the tokens that go on.
            tokens: (B, S, F) what they read; None for each other.
            allowed: (Q, S) bool, which query may read which token; None for all.
        """
        asks = self.norm_read(queries)
        read = self.attention(asks, asks if tokens is None else self.norm_read(tokens), allowed)
        values = queries + self.dropout(read)
        middle = self.dropout(functional.gelu(self.expand(self.norm_think(values))))
        return values + self.dropout(self.contract(middle))


def _from_one_projection(_module: nn.Module, state: MutableMapping[str, Any], prefix: str, *_: object) -> None:
    """Reads states of before 0.2, which had queries, keys and values in one matrix."""
    for part in ("weight", "bias"):
        projected = state.pop(f"{prefix}project.{part}", None)
        if projected is not None:
            asks, *reads = projected.chunk(3)
            state[f"{prefix}attention.ask.{part}"] = asks
            state[f"{prefix}attention.read.{part}"] = torch.cat(reads)
            state[f"{prefix}attention.join.{part}"] = state.pop(f"{prefix}join.{part}")
