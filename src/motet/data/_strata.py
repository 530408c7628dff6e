"""Random parts that each get their share of every task's labels."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from motet.data._labels import label_arrays
from motet.tasks import Task

MOST_CLASSES = 50
GOLDEN = (5**0.5 - 1) / 2


def strata(frame: pl.DataFrame, tasks: Sequence[Task]) -> np.ndarray:
    """What rows are balanced by: (N, T) int64, a code for each task's label, the rarest task's column first.

    A code is 0 without a label, else the class, or 1 where labels are numbers. With several label columns it is the
    row's rarest label. A task is as rare as the smallest of its codes.
    """
    codes = [_codes(*label_arrays(frame, task)) for task in tasks]
    codes.sort(key=lambda code: int(np.bincount(code)[np.unique(code)].min()))
    return np.stack(codes, axis=1) if codes else np.zeros((frame.height, 0), dtype=np.int64)


def assign(keys: np.ndarray, fractions: Sequence[float], generator: np.random.Generator) -> np.ndarray:
    """Parts 0, 1, … of the given shares, spread evenly within each stratum.

    Rows are ordered by stratum and at random within it; row i then goes where i · golden ratio modulo 1 falls among
    the shares. This sequence is so even that each run of rows, and so each stratum of the first task, of the first
    two and so on, gets its share to within about a row, however few rows it has.

    Args:
        keys: (N, T) int64 codes, the most important first.
        fractions: shares of the parts; they add up to 1.
        generator: of the order within strata and the start of the sequence.

    Returns:
        (N,) int64 part numbers.
    """
    num_rows = len(keys)
    noise = generator.permutation(num_rows)
    order = np.lexsort((noise, *keys.T[::-1]))
    places = (np.arange(num_rows) * GOLDEN + generator.random()) % 1.0
    parts = np.empty(num_rows, dtype=np.int64)
    parts[order] = np.searchsorted(np.cumsum(fractions)[:-1], places, side="right")
    return parts


def _codes(values: np.ndarray, present: np.ndarray) -> np.ndarray:
    if values.ndim == 2:
        counts = (np.nan_to_num(values) > 0).sum(axis=0)
        held = np.nan_to_num(values) > 0
        rarity = np.where(held, counts, len(values) + 1)
        codes = np.where(held.any(axis=1), rarity.argmin(axis=1) + 2, 1)
    elif values.dtype == object and present.any() and isinstance(values[int(present.argmax())], list):
        codes = np.ones(len(values), dtype=np.int64)
    else:
        ranks = pl.Series(values).rank("dense").to_numpy().astype(np.int64)
        codes = ranks if ranks.max(initial=0) <= MOST_CLASSES else np.ones(len(values), dtype=np.int64)
    return np.where(present, codes, 0)
