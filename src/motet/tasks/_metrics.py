"""Metrics as functions of arrays, computed for many resamples of the rows at once.

Where a function takes `weights` (R, N), each line is one resample: how often each row was drawn. It returns (R,)
scores, or (1,) without weights; NaN where the metric is not defined. Rows are sorted once, not once a resample, and
the weights are read in pieces of a few megabytes.
"""

from collections.abc import Iterator

import numpy as np

_PIECE = 500_000  # weights in a piece: 4 MB in float64, near a core's cache, where it is measured fastest
_SMALLEST = 1e-15  # the probability that a log loss never goes below


def _pieces(weights: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    num_resamples, num_rows = weights.shape
    step = max(1, _PIECE // max(1, num_rows))
    for start in range(0, num_resamples, step):
        piece = slice(start, min(start + step, num_resamples))
        yield piece, weights[piece].astype(np.float64)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Their quotient, NaN where the denominator is not positive."""
    defined = denominator > 0
    return np.where(defined, numerator / np.where(defined, denominator, 1.0), np.nan)


def weighted_mean(values: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """The mean of `values` (N,) in each resample."""
    values = np.asarray(values, dtype=np.float64)
    if weights is None:
        return np.array([values.mean() if len(values) else np.nan])
    result = np.empty(len(weights))
    for piece, part in _pieces(weights):
        result[piece] = _ratio(part @ values, part.sum(axis=1))
    return result


def mean_defined(scores: np.ndarray) -> np.ndarray:
    """The mean over the first axis of (K, R) without its NaNs; NaN where all are."""
    defined = ~np.isnan(scores)
    return _ratio(np.where(defined, scores, 0.0).sum(axis=0), defined.sum(axis=0))


def roc_auc(
    scores: np.ndarray, positives: np.ndarray, weights: np.ndarray | None = None, rows: np.ndarray | None = None
) -> np.ndarray:
    """The area under the ROC curve: how often a positive row scores above a negative one, half for a tie.

    Args:
        scores: (N,), higher for positives.
        positives: (N,) bool.
        weights: (R, N) or None.
        rows: indices of the rows that count; all when None.
    """
    scores, positives = np.asarray(scores), np.asarray(positives, dtype=bool)
    rows = np.arange(len(scores)) if rows is None else rows
    weights = np.ones((1, len(scores))) if weights is None else weights
    if np.isnan(scores[rows]).any():
        return np.full(len(weights), np.nan)
    order = rows[np.argsort(scores[rows], kind="stable")]
    lower, upper = order[~positives[order]], order[positives[order]]
    # For each positive, how many of the sorted negatives lie below it, and below it or level with it.
    below = np.searchsorted(scores[lower], scores[upper], side="left")
    level = np.searchsorted(scores[lower], scores[upper], side="right")
    ties = bool((below != level).any())
    result = np.empty(len(weights))
    for piece, part in _pieces(weights):
        passed = np.zeros((len(part), len(lower) + 1))
        np.cumsum(part[:, lower], axis=1, out=passed[:, 1:])
        wins = passed[:, below]
        if ties:
            wins = 0.5 * (wins + passed[:, level])
        drawn = part[:, upper]
        won = np.einsum("rn,rn->r", drawn, wins)
        result[piece] = _ratio(won, drawn.sum(axis=1) * passed[:, -1])
    return result


def macro_roc_auc(estimates: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """One-vs-rest AUC of estimates (N, C), averaged over the classes that have rows on both sides."""
    classes = range(estimates.shape[1])
    return mean_defined(np.stack([roc_auc(estimates[:, c], targets == c, weights) for c in classes]))


def label_roc_auc(estimates: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """AUC of each label of estimates (N, L) over the rows where it is known, averaged over the labels defined."""
    scores = []
    for label in range(estimates.shape[1]):
        rows = np.flatnonzero(~np.isnan(targets[:, label]))
        scores.append(roc_auc(estimates[:, label], targets[:, label] > 0.5, weights, rows))
    return mean_defined(np.stack(scores))


def rmse(estimates: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """The root of the mean squared error, in the targets' unit."""
    return np.sqrt(weighted_mean(_errors(estimates, targets) ** 2, weights))


def mae(estimates: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """The mean absolute error, in the targets' unit."""
    return weighted_mean(np.abs(_errors(estimates, targets)), weights)


def r2(estimates: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """One minus the squared error over the spread of the targets; NaN where they do not vary."""
    targets = np.asarray(targets, dtype=np.float64)
    # Centred first: the mean of squares less the square of the mean would lose a large mean's digits.
    centred = targets - targets.mean() if len(targets) else targets
    spread = weighted_mean(centred**2, weights) - weighted_mean(centred, weights) ** 2
    error = weighted_mean(_errors(estimates, targets) ** 2, weights)
    return 1.0 - _ratio(error, np.nan_to_num(spread))


def _errors(estimates: np.ndarray, targets: np.ndarray) -> np.ndarray:
    return np.asarray(estimates, dtype=np.float64) - np.asarray(targets, dtype=np.float64)


def poisson_deviance(estimates: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """The mean of 2·(y·log(y/μ) − y + μ), with means μ below 1e-10 read as 1e-10."""
    means = np.maximum(np.asarray(estimates, dtype=np.float64), 1e-10)
    counts = np.asarray(targets, dtype=np.float64)
    logs = counts * np.log(np.where(counts > 0, counts, 1.0) / means)
    return weighted_mean(2.0 * (np.where(counts > 0, logs, 0.0) - counts + means), weights)


def pinball(
    estimates: np.ndarray, targets: np.ndarray, levels: tuple[float, ...], weights: np.ndarray | None = None
) -> np.ndarray:
    """The pinball loss of estimates (N, Q), averaged over the levels, in the targets' unit."""
    errors = -_errors(estimates, np.asarray(targets)[:, None])
    level_Q = np.asarray(levels)
    return weighted_mean(np.maximum(level_Q * errors, (level_Q - 1.0) * errors).mean(axis=1), weights)


def rps(estimates: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """The ranked probability score of estimates (N, C): squared differences of cumulative shares, divided by C − 1."""
    num_classes = estimates.shape[1]
    cumulative = np.cumsum(np.asarray(estimates, dtype=np.float64), axis=1)[:, :-1]
    reached = np.asarray(targets)[:, None] <= np.arange(num_classes - 1)
    return weighted_mean(((cumulative - reached) ** 2).sum(axis=1) / (num_classes - 1), weights)


def brier(estimates: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """The mean squared difference of probabilities (N,) and what happened."""
    return weighted_mean(_errors(estimates, targets) ** 2, weights)


def log_loss(estimates: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """The mean of −log of the probability of the true class: estimates (N, C), targets (N,) class indices."""
    chosen = np.take_along_axis(np.asarray(estimates), np.asarray(targets, dtype=np.int64)[:, None], axis=1)[:, 0]
    return weighted_mean(-np.log(np.clip(chosen.astype(np.float64), _SMALLEST, 1.0)), weights)


def binary_log_loss(estimates: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """The mean of −log of the probability of what happened: probabilities (N,), targets (N,) of 0 and 1."""
    estimates = np.asarray(estimates, dtype=np.float64)
    happened = np.where(np.asarray(targets) > 0.5, estimates, 1.0 - estimates)
    return weighted_mean(-np.log(np.clip(happened, _SMALLEST, 1.0)), weights)


def accuracy(readings: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """The share of rows whose class index was read right."""
    return weighted_mean(np.asarray(readings) == np.asarray(targets), weights)


def average_precision(scores: np.ndarray, positives: np.ndarray) -> float:
    """The precision at each distinct score, weighted by the recall gained there; NaN without positives."""
    positives = np.asarray(positives, dtype=bool)
    if not positives.any() or np.isnan(scores).any():
        return float("nan")
    order = np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")
    ordered = np.asarray(scores)[order]
    last = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(ordered) - 1)
    hits = np.cumsum(positives[order])[last]
    return float((np.diff(hits, prepend=0) / hits[-1] * hits / (last + 1)).sum())


def confusion(readings: np.ndarray, targets: np.ndarray, num_classes: int) -> np.ndarray:
    """How many rows (C, C) of each true class (first axis) were read as each class."""
    flat = np.asarray(targets, dtype=np.int64) * num_classes + np.asarray(readings, dtype=np.int64)
    return np.bincount(flat, minlength=num_classes**2).reshape(num_classes, num_classes)


def macro_f1(table: np.ndarray) -> float:
    """F1 averaged over the classes that occur among the labels or the readings, from a confusion table."""
    total = table.sum(axis=0) + table.sum(axis=1)
    return float(mean_defined(_ratio(2.0 * np.diag(table), total)[:, None])[0])


def micro_f1(readings: np.ndarray, targets: np.ndarray) -> float:
    """F1 of all yes/no decisions together; NaN where nothing is yes."""
    hits = np.sum(readings & targets)
    return float(_ratio(np.array(2.0 * hits), np.array(readings.sum() + targets.sum())))


def weighted_kappa(table: np.ndarray) -> float:
    """Cohen's kappa with quadratic weights, from a confusion table; NaN where chance leaves nothing to explain."""
    num_classes = len(table)
    if table.sum() == 0:
        return float("nan")
    distance = (np.arange(num_classes)[:, None] - np.arange(num_classes)) ** 2
    chance = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    return float(1.0 - _ratio(np.array((distance * table).sum()), np.array((distance * chance).sum())))
