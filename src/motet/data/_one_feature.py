"""Predictors of one feature, as fast as counting: what a column alone says about a label."""

from dataclasses import dataclass

import numpy as np
import polars as pl

NUM_BINS = 64
MOST_LEVELS = 1000
LEAST_POSITIVES = 10


@dataclass(frozen=True)
class Binned:
    """A feature in bins.

    Args:
        codes: (N,) int64 bins, 0 where missing.
        num_bins: how many bins.
        numbers: (N,) float64 for a number column, in units of its own spread; None for categories.
    """

    codes: np.ndarray
    num_bins: int
    numbers: np.ndarray | None


def bin_feature(values: pl.Series, half: np.ndarray) -> Binned:
    """Numbers and dates to quantile bins of the rows in `half`, anything else to one bin a level."""
    dtype = values.dtype
    if dtype.is_numeric() or dtype.is_temporal():
        numbers = (values.to_physical() if dtype.is_temporal() else values).cast(pl.Float64).to_numpy()
        known = np.isfinite(numbers)
        if not known[half].any():
            return Binned(known.astype(np.int64), 2, None)
        fit = numbers[half & known]
        edges = np.unique(np.quantile(fit, np.linspace(0, 1, NUM_BINS + 1)[1:-1]))
        codes = np.where(known, np.searchsorted(edges, numbers, side="left") + 1, 0)
        spread = float(fit.std()) or 1.0
        scaled = np.where(known, (np.where(known, numbers, 0.0) - float(fit.mean())) / spread, 0.0)
        return Binned(codes, len(edges) + 2, scaled)
    texts = values.cast(pl.String) if dtype != pl.Boolean else values.cast(pl.Int8)
    codes = texts.rank("dense").fill_null(0).to_numpy().astype(np.int64)
    if codes.max(initial=0) > MOST_LEVELS:  # keep the most frequent ones apart, the others in one bin
        order = np.argsort(np.argsort(-np.bincount(codes)[1:], kind="stable")) + 1
        codes = np.where(codes > 0, np.minimum(np.concatenate([[0], order])[codes], MOST_LEVELS), 0)
    return Binned(codes, int(codes.max(initial=0)) + 1, None)


def squared_r(binned: Binned, values: np.ndarray, fit: np.ndarray, score: np.ndarray) -> float:
    """R² on the rows `score` of bin means (for numbers: a line in each bin) from the rows `fit`."""
    target = values[fit]
    low, high, middle = float(target.min()), float(target.max()), float(target.mean())
    truth = values[score]
    total = float(((truth - truth.mean()) ** 2).sum())
    if total == 0.0 or high == low:
        return 0.0
    codes, size = binned.codes[fit], binned.num_bins
    count = np.bincount(codes, minlength=size)
    mean = np.bincount(codes, target - middle, minlength=size) / np.maximum(count, 1) + middle
    predicted = mean[binned.codes[score]]
    if binned.numbers is not None:
        x = binned.numbers[fit]
        centre = np.bincount(codes, x, minlength=size) / np.maximum(count, 1)
        along = x - centre[codes]
        square = np.bincount(codes, along * along, minlength=size)
        slope = np.bincount(codes, along * (target - mean[codes]), minlength=size)
        slope = np.where((square > 1e-12) & (count > 2), slope / np.maximum(square, 1e-12), 0.0)
        where = binned.codes[score]
        predicted = predicted + slope[where] * (binned.numbers[score] - centre[where])
    error = float(((truth - np.clip(predicted, low, high)) ** 2).sum())
    return 1.0 - error / total


def roc_aucs(binned: Binned, hits: "Hits", fit: np.ndarray, score: np.ndarray) -> np.ndarray:
    """The area under the curve of each label on the rows `score`, bins ordered by their share of positives in `fit`.

    Returns:
        (C,) float64, NaN where a label has fewer than `LEAST_POSITIVES` positives or negatives in either part.
    """
    size = binned.num_bins
    fit_all = np.bincount(binned.codes[fit], minlength=size)
    score_all = np.bincount(binned.codes[score], minlength=size)
    fit_up, score_up = hits.by_bin(binned, fit), hits.by_bin(binned, score)
    areas = np.full(fit_up.shape[1], np.nan)
    for label in range(fit_up.shape[1]):
        ups, total = score_up[:, label], fit_up[:, label].sum()
        downs = score_all - ups
        if min(total, fit_all.sum() - total, ups.sum(), downs.sum()) < LEAST_POSITIVES:
            continue
        share = (fit_up[:, label] + total / fit_all.sum()) / (fit_all + 1)
        _, rank = np.unique(share, return_inverse=True)
        ups, downs = np.bincount(rank, ups), np.bincount(rank, downs)
        below = np.cumsum(downs) - downs
        areas[label] = (ups * (below + downs / 2)).sum() / (ups.sum() * downs.sum())
    return areas


@dataclass(frozen=True)
class Hits:
    """Which labels each row has.

    Args:
        labels: (N,) int64 classes, or (N, C) bool for several labels a row.
        num_labels: C.
    """

    labels: np.ndarray
    num_labels: int

    def by_bin(self, binned: Binned, rows: np.ndarray) -> np.ndarray:
        """How often each label occurs in each bin, among `rows`: (bins, C)."""
        codes, labels, size = binned.codes[rows], self.labels[rows], binned.num_bins
        if labels.ndim == 1:
            together = np.bincount(codes * self.num_labels + labels, minlength=size * self.num_labels)
            return together.reshape(size, self.num_labels)
        return np.stack([np.bincount(codes, label, minlength=size) for label in labels.T], axis=1)
