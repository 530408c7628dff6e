"""Attention over the tokens of a row."""

from torch import Tensor, nn
from torch.nn import functional

from motet._errors import RequestError


class TokenAttention(nn.Module):
    """Queries read tokens of their row: W_o softmax(q kᵀ / √d + mask) v, without a norm or a residual.

    Args:
        width: F, the size of a token.
        num_heads: of the attention; divides the width.

    Raises:
        RequestError: the heads do not divide the width.

    Cost: for Q queries and S tokens B · 2 · F · (Q · F + S · F + Q · S) multiplications.

    Source: Vaswani et al., Attention Is All You Need, NeurIPS 2017.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        if num_heads < 1 or width % num_heads:
            message = (
                f"{num_heads} heads were asked for tokens of size {width}; the size must be a multiple of the heads. "
                "Change num_heads, or the width."
            )
            raise RequestError(message)
        self.num_heads = num_heads
        self.ask = nn.Linear(width, width)
        self.read = nn.Linear(width, 2 * width)
        self.join = nn.Linear(width, width)

    def forward(self, queries: Tensor, tokens: Tensor, allowed: Tensor | None = None) -> Tensor:
        """Maps queries (..., Q, F) and tokens (..., S, F) to (..., Q, F); `allowed` (Q, S) says who may read what."""
        key, value = (self._heads(part) for part in self.read(tokens).chunk(2, dim=-1))
        found = functional.scaled_dot_product_attention(self._heads(self.ask(queries)), key, value, attn_mask=allowed)
        return self.join(found.transpose(1, 2).reshape(queries.shape))

    def _heads(self, values: Tensor) -> Tensor:
        rows = values.reshape(-1, *values.shape[-2:])
        return rows.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
