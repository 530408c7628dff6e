"""One feature from what all layers of an encoder say."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from motet._errors import RequestError
from motet.models.encoders._factorised_attention import checked_present


class LayerPooling(nn.Module):
    """What every layer of an encoder gives to one feature (B, F): learned queries read the layers, not the last alone.

    For a frozen or adapted transformer whose middle layers know what a task needs; a pooling for each task lets each
    choose its depth. Each layer's tokens are averaged to h_l, and with learned queries q and an embedding p_l a layer

        z = q + attention(norm(q), norm(h_l + p_l)),   z = z + W_2 (a ⊙ gelu(b)) with (a, b) = W_1 norm(z)

    and the feature is the mean of z over the queries, of length one.

    Args:
        num_layers: L.
        width: F.
        num_queries: how many learned queries there are.
        num_heads: of the attention.
        head_width: of each head; None means F / num_heads.
        expansion: how much wider the inner layer of the last step is.
        unit: whether the feature is divided by its length.

    Raises:
        RequestError: a size below one, or heads that do not divide the width; in `forward`, another number of layers
            or other shapes.

    Cost: F · (4 · H · d + 3 · expansion · F + L + Q) parameters with Q queries and H heads of width d;
        B · Q · F · (2 · H · d + 3 · expansion · F) multiplications and more.

    Source: Tang and Yang, Pooling and Attention: What Are Effective Designs for LLM-Based Embedding Models?, 2024, and
        its released code. Departure: 16 queries in 8 heads that share the width, where the code has 768 in 32 heads of
        2048, for models of width 4096.

    Example:
        >>> import torch
        >>> from motet.models.encoders import LayerPooling
        >>> layers = [torch.ones(2, 5, 8)] * 3
        >>> tuple(LayerPooling(3, 8)(layers).shape)
        (2, 8)
    """

    def __init__(
        self,
        num_layers: int,
        width: int,
        *,
        num_queries: int = 16,
        num_heads: int = 8,
        head_width: int | None = None,
        expansion: int = 4,
        unit: bool = True,
    ) -> None:
        super().__init__()
        if min(num_layers, width, num_queries, num_heads, expansion) < 1 or (head_width is None and width % num_heads):
            message = (
                f"{num_layers} layers of width {width}, {num_queries} queries, {num_heads} heads and expansion "
                f"{expansion} were given; each is at least one, and the heads divide the width unless head_width is "
                "given. Change the sizes."
            )
            raise RequestError(message)
        inner = num_heads * (width // num_heads if head_width is None else head_width)
        self.num_layers, self.width, self.num_heads, self.unit = num_layers, width, num_heads, unit
        self.queries = nn.Parameter(torch.randn(num_queries, width))
        self.places = nn.Embedding(num_layers, width)
        self.layer_norm, self.query_norm, self.last_norm = (nn.LayerNorm(width) for _ in range(3))
        self.ask = nn.Linear(width, inner, bias=False)
        self.read = nn.Linear(width, 2 * inner, bias=False)
        self.join = nn.Linear(inner, width, bias=False)
        self.expand = nn.Linear(width, 2 * expansion * width)
        self.contract = nn.Linear(expansion * width, width)

    def forward(self, layers: Sequence[Tensor], present: Tensor | None = None) -> Tensor:
        """Maps L layers' tokens (B, S, F), of which `present` (B, S) says which there are, or (B, F), to (B, F)."""
        found = self._averaged(layers, present) + self.places.weight
        queries = self.queries.expand(found.shape[0], -1, -1)
        key, value = (self._heads(part) for part in self.read(self.layer_norm(found)).chunk(2, dim=-1))
        heads = functional.scaled_dot_product_attention(self._heads(self.ask(self.query_norm(queries))), key, value)
        mixed = queries + self.join(heads.transpose(1, 2).flatten(2))
        plain, gate = self.expand(self.last_norm(mixed)).chunk(2, dim=-1)
        feature = (mixed + self.contract(plain * functional.gelu(gate))).mean(dim=1)
        return functional.normalize(feature, dim=-1) if self.unit else feature

    def _averaged(self, layers: Sequence[Tensor], present: Tensor | None) -> Tensor:
        if len(layers) != self.num_layers or any(
            layer.ndim not in {2, 3} or layer.shape[-1] != self.width for layer in layers
        ):
            message = (
                f"{len(layers)} layers arrived, of shapes {[tuple(layer.shape) for layer in layers][:3]}; "
                f"{self.num_layers} of (B, S, {self.width}) or (B, {self.width}) were expected. Give every layer's "
                "hidden states, without the embeddings."
            )
            raise RequestError(message)
        stacked = torch.stack(list(layers), dim=1)
        if stacked.ndim == 3:
            return stacked
        if present is None:
            return stacked.mean(dim=2)
        share = checked_present(present, layers[0]).to(stacked.dtype)
        return torch.einsum("blsf,bs->blf", stacked, share / share.sum(dim=1, keepdim=True))

    def _heads(self, values: Tensor) -> Tensor:
        return values.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
