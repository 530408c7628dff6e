"""Eight tasks of short texts for the last layer of a sentence encoder; the layers below stay as they are."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import torch
from _experts_case import Rows, Size, State
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import BertModel
from transformers.models.bert.modeling_bert import BertLayer

TOKENS, DROPPED, AT_ONCE, TEST_SHARE = 32, 0.15, 64, 0.3
DOMAINS = ("tweets", "movieReviewSnippets", "amazonReviewSnippets", "nytEditorialSnippets")
# Properties of clothing reviews, and the values that are told apart.
REVIEWS: dict[str, Sequence[object]] = {
    "Recommended IND": (0, 1),
    "Rating": (1, 2, 3, 4, 5),
    "Department Name": ("Tops", "Dresses", "Bottoms", "Intimate", "Jackets"),
    "Class Name": ("Dresses", "Knits", "Blouses", "Sweaters", "Pants"),
}


class LastLayer(nn.Module):
    """Tokens with a column that is 1 where there is one, (B, S, 385), to features (B, 384)."""

    def __init__(self, layer: BertLayer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, tokens: Tensor) -> Tensor:
        """The mean over the tokens that are there."""
        there = tokens[..., -1]
        mask = (1.0 - there)[:, None, None, :] * torch.finfo(tokens.dtype).min
        found = self.layer(tokens[..., :-1], mask.expand(-1, 1, there.shape[1], -1))
        return (found * there.unsqueeze(-1)).sum(dim=1) / there.sum(dim=1, keepdim=True).clamp(min=1.0)


class SentenceProblem:
    """Positive or not in four domains; whether a review recommends, its stars, its department and its class."""

    tasks = (*DOMAINS, *REVIEWS)
    classes = (*(2 for _ in DOMAINS), *(len(values) for values in REVIEWS.values()))
    width, routed, rate = 384, "layer.intermediate", 1e-4

    def __init__(self, data: Path, encoder: Path) -> None:
        self._encoder = BertModel.from_pretrained(encoder, add_pooling_layer=False).eval()
        self._tokenizer = Tokenizer.from_file(str(encoder / "tokenizer.json"))
        self._tokenizer.enable_truncation(TOKENS)
        self._tokenizer.enable_padding(length=TOKENS)
        self._last = self._encoder.encoder.layer[-1]
        self._texts = [*_sentiments(data), *_reviews(data)]

    def trunk(self) -> nn.Module:
        """The last layer, untrained."""
        return LastLayer(BertLayer(self._encoder.config, layer_idx=0))

    def base(self, size: Size, seed: int) -> State:  # noqa: ARG002
        """The published weights: sizes and seeds change the experts alone."""
        return {name: part.clone() for name, part in LastLayer(self._last).state_dict().items()}

    def rows(self, task: int, which: str, count: int, generator: np.random.Generator) -> Rows:
        """As many texts of each class as of every other, with their classes."""
        texts, classes = self._texts[task]
        is_test = np.random.default_rng(0).random(len(classes)) < TEST_SHARE
        free = np.flatnonzero(is_test if which == "test" else ~is_test)
        number = self.classes[task]
        chosen = np.concatenate(
            [generator.permutation(free[classes[free] == one])[: -(-count // number)] for one in range(number)]
        )
        chosen = generator.permutation(chosen)[:count]
        return self._read([texts[place] for place in chosen]), torch.from_numpy(classes[chosen])

    def changed(self, tokens: Tensor, generator: torch.Generator) -> Tensor:
        """Without some of the tokens; the first one stays."""
        kept = torch.rand(tokens.shape[:2], generator=generator) >= DROPPED
        kept[:, 0] = True
        return torch.cat([tokens[..., :-1], tokens[..., -1:] * kept.unsqueeze(-1)], dim=-1)

    @torch.no_grad()
    def _read(self, texts: Sequence[str]) -> Tensor:
        found = []
        for start in range(0, len(texts), AT_ONCE):
            read = self._tokenizer.encode_batch(list(texts[start : start + AT_ONCE]))
            places = torch.tensor([one.ids for one in read])
            there = torch.tensor([one.attention_mask for one in read])
            states = self._below(places, there)
            found.append(torch.cat([states, there.unsqueeze(-1).float()], dim=-1))
        return torch.cat(found)

    def _below(self, places: Tensor, there: Tensor) -> Tensor:
        """The states that the last layer reads."""
        layers = self._encoder.encoder.layer
        self._encoder.encoder.layer = layers[:-1]
        found = self._encoder(input_ids=places, attention_mask=there).last_hidden_state
        self._encoder.encoder.layer = layers
        return found


def _sentiments(data: Path) -> list[tuple[list[str], np.ndarray]]:
    frame = pl.read_parquet(data / "vader_4domains.parquet")
    parts = [frame.filter(pl.col("domain") == domain) for domain in DOMAINS]
    return [(part["text"].to_list(), (part["mean_sentiment"] > 0).cast(pl.Int64).to_numpy()) for part in parts]


def _reviews(data: Path) -> list[tuple[list[str], np.ndarray]]:
    """All reviews for each property; −1 where the value is none of those that are told apart."""
    frame = pl.read_parquet(data / "clothing_reviews.parquet").filter(pl.col("Review Text").is_not_null())
    texts = frame["Review Text"].to_list()
    return [
        (texts, np.array([values.index(value) if value in values else -1 for value in frame[name].to_list()]))
        for name, values in REVIEWS.items()
    ]
