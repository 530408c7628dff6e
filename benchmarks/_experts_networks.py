"""Small networks for images of 28 by 28: what the experts of `merge_experts.py` are made of."""

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

HEADS, BLOCKS, PATCH, SIDE = 4, 4, 7, 28


def mlp(width: int) -> nn.Sequential:
    """Two layers, the inner one twice as wide."""
    return nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))


class Block(nn.Module):
    """Attention and an MLP, each around a residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attend, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = mlp(width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, S, F) to the same."""
        parts = self.attend(self.first(tokens)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(*parts.unbind(0)).transpose(1, 2).flatten(2)
        tokens = tokens + self.project(mixed)
        return tokens + self.mlp(self.second(tokens))


class VisionTransformer(nn.Module):
    """Images (B, 28, 28) to features (B, 64)."""

    width = 64

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, self.width, PATCH, PATCH)
        self.places = nn.Parameter(0.02 * torch.randn((SIDE // PATCH) ** 2, self.width))
        self.blocks = nn.Sequential(*(Block(self.width) for _ in range(BLOCKS)))
        self.norm = nn.LayerNorm(self.width)

    def forward(self, images: Tensor) -> Tensor:
        """The mean of the tokens."""
        tokens = self.embed(images.unsqueeze(1)).flatten(2).transpose(1, 2) + self.places
        return self.norm(self.blocks(tokens)).mean(dim=1)


class Convolutions(nn.Module):
    """Images (B, 28, 28) to features (B, 128): three convolutions of stride two, and an MLP over their mean."""

    width = 128

    def __init__(self) -> None:
        super().__init__()
        channels = (1, 32, 64, self.width)
        self.layers = nn.Sequential(
            *(
                layer
                for before, after in itertools.pairwise(channels)
                for layer in (nn.Conv2d(before, after, 3, 2, 1), nn.GroupNorm(8, after), nn.GELU())
            )
        )
        self.norm, self.mlp = nn.LayerNorm(self.width), mlp(self.width)

    def forward(self, images: Tensor) -> Tensor:
        """The mean over places, and what the MLP adds."""
        features = self.layers(images.unsqueeze(1)).mean(dim=(2, 3))
        return features + self.mlp(self.norm(features))
