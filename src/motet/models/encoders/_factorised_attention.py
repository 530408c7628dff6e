"""Attention over tokens whose heads share two thin matrices instead of having a full one each."""

import torch
from torch import Tensor, nn

from motet._errors import RequestError


class FactorisedAttentionPooling(nn.Module):
    """Tokens (B, S, F) to one feature (B, H · F): H weighted sums, at the cost of two thin matrices for all heads.

    For the end of an encoder whose tokens are many and whose parameters shall be few. A learned context c asks every
    token once for each head through a bilinear form of low rank, instead of all tokens asking all others:

        s_ht = Σ_k (u_hkᵀ c) (v_hkᵀ x_t),   y_h = Σ_t softmax_t(s_h)_t x_t

    Args:
        width: F.
        num_heads: H.
        rank: K of each head's form.

    Raises:
        RequestError: no head or rank; in `forward`, tokens of another size, or a row without a token.

    Cost: F · (2 · H · K + 1) parameters; B · S · F · H · (K + 1) multiplications, linear in the number of tokens.

    Source: Mehta et al., Low Rank Factorization for Compact Multi-Head Self-Attention, 2019, from its abstract and from
        memory: its text could not be read. Departures: the squashing and the norm of scores that its re-implementations
        differ in are left out; tokens come from any encoder, not from a recurrent one.

    Example:
        >>> import torch
        >>> from motet.models.encoders import FactorisedAttentionPooling
        >>> tuple(FactorisedAttentionPooling(8, num_heads=3)(torch.ones(2, 5, 8)).shape)
        (2, 24)
    """

    def __init__(self, width: int, *, num_heads: int = 4, rank: int = 1) -> None:
        super().__init__()
        if min(width, num_heads, rank) < 1:
            message = (
                f"Width {width}, {num_heads} heads and rank {rank} were given; each is at least one. Give four heads "
                "of rank one, say."
            )
            raise RequestError(message)
        self.inputs = width
        self.width = num_heads * width
        self.num_heads = num_heads
        self.context = nn.Parameter(torch.randn(width))
        self.ask = nn.Linear(width, num_heads * rank, bias=False)
        self.read = nn.Linear(width, num_heads * rank, bias=False)

    def forward(self, tokens: Tensor, present: Tensor | None = None) -> Tensor:
        """Maps tokens (B, S, F), of which `present` (B, S) says which there are, to (B, H · F)."""
        if tokens.ndim != 3 or tokens.shape[-1] != self.inputs:
            message = (
                f"Tokens of shape {tuple(tokens.shape)} arrived; (B, S, {self.inputs}) was expected. Build the pooling "
                "with the encoder's width."
            )
            raise RequestError(message)
        products = self.ask(self.context) * self.read(tokens)
        scores = products.unflatten(-1, (self.num_heads, -1)).sum(dim=-1)
        if present is not None:
            scores = scores.masked_fill(~checked_present(present, tokens).unsqueeze(-1), -torch.inf)
        return (scores.softmax(dim=1).transpose(1, 2) @ tokens).flatten(1)


def checked_present(present: Tensor, tokens: Tensor) -> Tensor:
    """Which tokens there are, as booleans (B, S).

    Raises:
        RequestError: the shape is another, or a row has none.
    """
    if tuple(present.shape) != tuple(tokens.shape[:2]):
        message = (
            f"`present` has shape {tuple(present.shape)} and the tokens {tuple(tokens.shape)}; one entry for each "
            f"token was expected, {tuple(tokens.shape[:2])}. Give the mask of these tokens."
        )
        raise RequestError(message)
    present = present.bool()
    if not torch.compiler.is_compiling() and not bool(present.any(dim=1).all()):
        message = (
            f"Row {int((~present.any(dim=1)).nonzero()[0, 0])} has no token; a mean needs one at least. Leave the row "
            "out, or give it a token of its own."
        )
        raise RequestError(message)
    return present
