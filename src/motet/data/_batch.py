"""Batches of rows with labels that may be missing."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from motet.data._features import Features


@dataclass(frozen=True)
class Batch:
    """Some rows.

    Args:
        inputs: `numbers` (B, Fn) float32, NaN where missing, and `categories` (B, Fc) int64.
        targets: by task, as `Task.encode` gives them.
        present: by task, (B,) bool.
    """

    inputs: dict[str, Tensor]
    targets: dict[str, Tensor]
    present: dict[str, Tensor]

    def __len__(self) -> int:
        """How many rows."""
        return len(self.inputs["numbers"])

    def to(self, device: torch.device | str) -> "Batch":
        """The same rows on another device."""
        parts = (self.inputs, self.targets, self.present)
        return Batch(*({name: tensor.to(device, non_blocking=True) for name, tensor in part.items()} for part in parts))


class TableRows:
    """An encoded table in memory, once, from which batches are taken.

    Args:
        features: the encoded rows; their arrays are shared, not copied.
        targets: by task, (N,) or (N, L).
        present: by task, (N,) bool.
    """

    def __init__(
        self, features: Features, targets: Mapping[str, np.ndarray], present: Mapping[str, np.ndarray]
    ) -> None:
        self.inputs = {
            "numbers": torch.from_numpy(features.numbers),
            "categories": torch.from_numpy(features.categories),
        }
        self.targets = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in targets.items()}
        self.present = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in present.items()}

    def __len__(self) -> int:
        """How many rows."""
        return len(self.inputs["numbers"])

    def take(self, rows: np.ndarray | Tensor) -> Batch:
        """The rows at (n,) int64 places, as one batch."""
        places = torch.as_tensor(rows, dtype=torch.int64)
        inputs = {name: tensor.index_select(0, places) for name, tensor in self.inputs.items()}
        inputs["categories"] = inputs["categories"].long()
        targets = {name: tensor.index_select(0, places) for name, tensor in self.targets.items()}
        return Batch(inputs, targets, {name: tensor.index_select(0, places) for name, tensor in self.present.items()})

    def batches(
        self, rows: np.ndarray | Tensor, batch_size: int, *, generator: torch.Generator | None = None
    ) -> Iterator[Batch]:
        """Goes once over `rows`, (n,) int64; shuffled when a generator is given; the last batch may be short."""
        places = torch.as_tensor(rows, dtype=torch.int64)
        if generator is not None:
            places = places[torch.randperm(len(places), generator=generator)]
        for start in range(0, len(places), batch_size):
            yield self.take(places[start : start + batch_size])
