"""Rows that each belong to one task."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class TaskRows:
    """Labelled rows, each of one task.

    Args:
        matrix: (N, F) float32, numbers with NaN where missing, and then category codes.
        owners: (N,) the name of each row's task, text.
        targets: (N,) as the task encodes them.
        num_categories: how many of the last columns are categories.
    """

    matrix: np.ndarray
    owners: np.ndarray
    targets: np.ndarray
    num_categories: int = 0

    def __len__(self) -> int:
        """How many rows."""
        return len(self.targets)


def codes_of(owners: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Each row's place in `names`, (N,) int64; −1 for a task that is not among them."""
    places = {name: place for place, name in enumerate(names)}
    found, rows = np.unique(np.asarray(owners, dtype=object).astype(str), return_inverse=True)
    return np.array([places.get(name, -1) for name in found], dtype=np.int64)[rows]


def with_codes(matrix: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """The matrix with the tasks' codes as its last column, float32."""
    return np.concatenate([matrix, codes[:, None].astype(np.float32)], axis=1)
