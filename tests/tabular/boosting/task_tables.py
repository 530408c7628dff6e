"""Rows of ten tasks of which two follow a function of their own."""

import numpy as np

from motet.tabular.boosting import TaskRows

NAMES = [f"school {number}" for number in range(6)]
APART = {"school 4", "school 5"}


def signal(matrix: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """The ordinary schools agree; those apart answer the other way round."""
    sign = np.where(np.isin(owners, list(APART)), -1.0, 1.0)
    return sign * (np.sin(2 * matrix[:, 0]) + matrix[:, 1])


def task_rows(num_rows: int, seed: int, targets: object = signal) -> TaskRows:
    """Rows of every school in turn; `targets` makes labels of matrix and owners."""
    draw = np.random.default_rng(seed)
    matrix = draw.normal(size=(num_rows, 3)).astype(np.float32)
    owners = np.array(NAMES)[np.arange(num_rows) % len(NAMES)]
    return TaskRows(matrix, owners, targets(matrix, owners))
