"""Coefficients finer than a tensor: one for each output, or for each of some random blocks."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import TypeAlias

import torch
from torch import Tensor, nn

from motet._errors import RequestError

Shapes: TypeAlias = Mapping[str, Sequence[int]]


class OutputWise(nn.Module):
    """One coefficient for each expert and each output of a merged tensor: ω_e ⊙ τ_e, by the first axis.

    Choose it over `LayerWise` where labelled rows are enough to tell a layer's outputs apart. A linear layer then adds
    Σ_e ω_e ⊙ (τ_e x): each expert's change of the outputs, under a scale for each output.

    Args:
        shapes: of the merged tensors, by name. The first axis counts as outputs, which it is in linear and
            convolutional layers; in an embedding it is the words.
        num_experts: E.
        start: of each coefficient.

    Source: the scales of ScaLearn (Frohmann et al., ACL Findings 2024), which stand there on what adapters add.
    """

    def __init__(self, shapes: Shapes, num_experts: int, *, start: float = 0.3) -> None:
        super().__init__()
        self._axes = {name: len(shape) for name, shape in shapes.items()}
        self._outputs = [shape[0] if shape else 1 for shape in shapes.values()]
        self.values = nn.Parameter(torch.full((num_experts, sum(self._outputs)), float(start)))

    def forward(self) -> dict[str, Tensor]:
        """The coefficients (E, outputs, 1, …) by tensor."""
        parts = self.values.split(self._outputs, dim=1)
        return {
            name: part.reshape(*part.shape[: axes + 1], *[1] * (axes - 1)) if axes else part.squeeze(1)
            for (name, axes), part in zip(self._axes.items(), parts, strict=True)
        }


class BlockWise(nn.Module):
    """One coefficient for each expert, merged tensor and block, where every number is in one of K random blocks.

    Choose it over `LayerWise` where rows are many enough for K times its coefficients: the more blocks, the nearer it
    comes to fine-tuning, with P · E · K numbers to train and to keep.

    Args:
        shapes: of the merged tensors, by name.
        num_experts: E.
        blocks: K, above 0.
        start: of each coefficient.
        seed: of the blocks, which all experts share.

    Raises:
        RequestError: there is no block.

    Cost: each call lays out a coefficient for every number of every expert.

    Source: aTLAS × K of Zhang et al., NeurIPS 2024, and its code's random assignment. Departures: tensors of one shape
        have blocks of their own, and tensors that are not matrices take part, which that code leaves at the base.
    """

    def __init__(self, shapes: Shapes, num_experts: int, *, blocks: int, start: float = 0.0, seed: int = 0) -> None:
        super().__init__()
        if blocks < 1:
            message = f"BlockWise got blocks={blocks}; a whole number above 0 was expected. One block is layer-wise."
            raise RequestError(message)
        generator = torch.Generator().manual_seed(seed)
        self._shapes = {name: tuple(shape) for name, shape in shapes.items()}
        self._sizes = [prod(shape) for shape in self._shapes.values()]
        self.values = nn.Parameter(torch.full((len(self._shapes), num_experts, blocks), float(start)))
        self.register_buffer("assigned", torch.randint(blocks, (sum(self._sizes),), generator=generator).int())

    def forward(self) -> dict[str, Tensor]:
        """The coefficients (E, *shape) by tensor."""
        parts = self.get_buffer("assigned").split(self._sizes)
        return {
            name: values.index_select(1, part).reshape(-1, *shape)
            for (name, shape), values, part in zip(self._shapes.items(), self.values, parts, strict=True)
        }
