"""The maps between raw outputs and estimates that several kinds of task share."""

import numpy as np
import torch
from torch import Tensor


def at_least_float32(outputs: Tensor) -> Tensor:
    """Raw outputs in float32 or float64: logs and squares of half-precision numbers lose too much."""
    return outputs if outputs.dtype in (torch.float32, torch.float64) else outputs.float()


def inverse_softplus(values: np.ndarray) -> np.ndarray:
    """The raw outputs whose softplus is `values`, which are positive."""
    return values + np.log(-np.expm1(-values))


def logit(probabilities: np.ndarray) -> np.ndarray:
    """The log odds of probabilities strictly between zero and one."""
    return np.log(probabilities) - np.log1p(-probabilities)


def class_shares(targets: np.ndarray, num_classes: int) -> np.ndarray:
    """The share (C,) of each class among `targets`, with half a row for a class that has none.

    The half row keeps the log loss of a constant finite, and the head's first bias with it.
    """
    counts = np.bincount(targets.astype(np.int64), minlength=num_classes).astype(np.float64)
    counts = np.maximum(counts, 0.5)
    return counts / counts.sum()
