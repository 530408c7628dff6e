"""A checkpoint: named tensors that are read piece by piece."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from motet._errors import RequestError
from motet.merge._checksum import Checksum
from motet.merge._dtypes import FLOATS, STORED, Array, decode

if TYPE_CHECKING:
    from torch import Tensor

# A state dict or arrays by name; a safetensors file; a model folder; where there is a base, an adapter's folder.
Source: TypeAlias = "Mapping[str, Tensor] | Mapping[str, Array] | Path | str"


@dataclass(frozen=True)
class Entry:
    """What is known of a tensor without reading it.

    Args:
        dtype: as safetensors files name it, such as 'BF16'.
        shape: of the tensor.
    """

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many numbers the tensor holds."""
        return prod(self.shape)

    @property
    def num_bytes(self) -> int:
        """How many bytes it fills."""
        return self.size * STORED[self.dtype].itemsize

    @property
    def is_float(self) -> bool:
        """Whether it holds weights, which are merged; other tensors are counters and indices."""
        return self.dtype in FLOATS


class Checkpoint(ABC):
    """Named tensors; nothing is read before it is asked for.

    Args:
        title: what messages and the merged file's record call it.
        entries: what each tensor is.
    """

    def __init__(self, title: str, entries: Mapping[str, Entry]) -> None:
        self.title = title
        self.entries = dict(entries)

    @abstractmethod
    def stored(self, name: str, start: int, stop: int) -> Array:
        """The numbers `start` to `stop` of the flattened tensor, as they are stored."""

    @abstractmethod
    def checksum(self) -> str:
        """A text that changes when any byte of the checkpoint does."""

    def read(self, name: str, start: int, stop: int) -> Array:
        """The numbers `start` to `stop` of the flattened tensor in float32 (float64 where stored so); do not write."""
        return decode(self.stored(name, start, stop), self.entries[name].dtype)


class StateDict(Checkpoint):
    """The tensors of a state dict, or numpy arrays by name.

    Args:
        title: what messages call it.
        tensors: torch tensors on any device, or numpy arrays.

    Raises:
        RequestError: a value is no tensor, or of a format that safetensors files do not know.
    """

    def __init__(self, title: str, tensors: Mapping[str, "Tensor | Array"]) -> None:
        # Arithmetic on arrays without dimensions gives numpy scalars.
        self.tensors = {
            name: np.asarray(tensor) if isinstance(tensor, np.generic) else tensor for name, tensor in tensors.items()
        }
        super().__init__(title, {name: _entry(title, name, tensor) for name, tensor in self.tensors.items()})

    def stored(self, name: str, start: int, stop: int) -> Array:
        """The numbers of a slice, copied from the device where needed."""
        tensor: Any = self.tensors[name]
        if isinstance(tensor, np.ndarray):
            return tensor.reshape(-1)[start:stop]
        part = tensor.detach().reshape(-1)[start:stop].cpu()
        if self.entries[name].dtype == "BF16":
            import torch

            part = part.view(torch.uint16)
        return part.numpy()

    def checksum(self) -> str:
        """Of names, formats, shapes and bytes."""
        found = Checksum()
        for name, entry in sorted(self.entries.items()):
            found.add(f"{name} {entry.dtype} {entry.shape}".encode())
            found.add(np.ascontiguousarray(self.stored(name, 0, entry.size)).data)
        return found.text()

    def tied(self) -> dict[str, str]:
        """Names whose tensor shares its memory with an earlier one, by that earlier name."""
        first: dict[tuple[Any, ...], str] = {}
        found = {}
        for name, tensor in self.tensors.items():
            known = first.setdefault(_place(tensor), name)
            if known != name:
                found[name] = known
        return found


def _place(tensor: Any) -> tuple[Any, ...]:
    if isinstance(tensor, np.ndarray):
        return (tensor.__array_interface__["data"][0], tensor.shape, tensor.strides, tensor.size or id(tensor))
    return (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.numel() or id(tensor))


def _entry(title: str, name: str, tensor: object) -> Entry:
    words = str(getattr(tensor, "dtype", "")).removeprefix("torch.")
    known = {str(np.dtype(stored)): dtype for dtype, stored in STORED.items() if dtype != "BF16"} | {"bfloat16": "BF16"}
    if words not in known:
        what = f"dtype {words}" if words else f"type {type(tensor).__name__}"
        message = (
            f"'{name}' of {title} has {what}; tensors of numbers were expected. "
            "Pass model.state_dict() alone, and leave optimiser states and quantised tensors out."
        )
        raise RequestError(message)
    return Entry(known[words], tuple(getattr(tensor, "shape", ())))
