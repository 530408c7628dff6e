"""How long rows that follow each other stay alike: rows of a series are not independent evidence."""

import numpy as np

from motet.tasks import Multiclass, Multilabel, Ordinal, Quantile, Task

LONGEST = 4.0  # a block is this many times as long as the rows' likeness lasts
FAINT = 1.5  # likeness shorter than this is what independent rows show by chance


def block_length(values: np.ndarray) -> int:
    """How many rows that follow each other must be drawn together in a bootstrap; 1 for independent rows.

    The likeness of a series with autocorrelations ρ lasts τ = 1 + 2 Σ ρ_k rows, summed up to the first that chance
    explains; blocks of 4 τ hold nine tenths of what it adds to a mean's variance.

    Args:
        values: (N,) what is averaged, in the order of the rows.
    """
    centred = np.asarray(values, dtype=np.float64) - np.mean(values) if len(values) else np.zeros(0)
    power = float(centred @ centred)
    if len(centred) < 3 or not power > 0:
        return 1
    spectrum = np.fft.rfft(centred, 2 * len(centred))
    likeness = np.fft.irfft(np.abs(spectrum) ** 2)[: len(centred)] / power
    chance = 2.0 / np.sqrt(len(centred))
    last = int(np.argmax(likeness < chance))  # the last ones are near zero by construction
    lasting = 1.0 + 2.0 * float(likeness[1:last].sum())
    return 1 if lasting < FAINT else min(len(centred), int(np.ceil(LONGEST * lasting)))


def row_errors(task: Task, estimates: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """A squared error for each row (N,), whatever the task's metric is."""
    if isinstance(task, (Multiclass, Ordinal)):
        return (1.0 - estimates[np.arange(len(targets)), targets.astype(np.int64)]) ** 2
    if isinstance(task, Multilabel):
        return np.nan_to_num((estimates - targets) ** 2).mean(axis=1)
    if isinstance(task, Quantile):
        return ((estimates - targets[:, None]) ** 2).mean(axis=1)
    return (estimates - targets) ** 2
