"""Weights in half the bytes, at no cost that the guard has not judged."""

from collections.abc import Collection

import torch
from torch import Tensor

LEAST = 1024  # numbers in a tensor below which half the bytes are nothing


def rounded(state: dict[str, Tensor], names: Collection[str]) -> dict[str, Tensor]:
    """A network's state whose named tensors hold only numbers that float16 holds too.

    To be done before anything is judged: what is measured is then exactly what `stored` keeps. Buffers such as the
    edges of bins are not for it: eleven bits are too few for days since 1970. A tensor with a number out of range
    stays as it is.
    """
    return {name: _rounded(value) if name in names else value for name, value in state.items()}


def stored(tensor: Tensor) -> Tensor:
    """The tensor as a file keeps it: float16 where that loses nothing at all, else as it is."""
    if tensor.dtype != torch.float32 or tensor.numel() < LEAST:
        return tensor
    half = tensor.half()
    return half if torch.equal(half.float(), tensor) else tensor


def _rounded(tensor: Tensor) -> Tensor:
    if tensor.dtype != torch.float32:
        return tensor
    found = tensor.half().float()
    return found if bool(torch.isfinite(found).all()) else tensor
