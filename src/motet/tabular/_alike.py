"""Which features say the same: shuffled alone, one of them would look useless while the other still answers for it."""

from itertools import combinations

import numpy as np
import polars as pl

from motet.data import FeatureEncoder, Features

THRESHOLD = 0.9


def alike(encoder: FeatureEncoder, features: Features, threshold: float = THRESHOLD) -> list[tuple[str, ...]]:
    """The table's feature columns, those that say the same put together, in the encoder's order.

    Two number columns say the same if their rank correlation (Spearman's) is at least the threshold or at most minus
    it, two categories if Cramér's V is, corrected for its bias. A date is compared by each of its parts. A number is
    not compared with a category. What is like something alike joins it.

    Args:
        encoder: of the features.
        features: rows to measure on.
        threshold: likeness from 0 to 1.

    Cost: one product of (Fn, N) by (N, Fn), and a sort of N for each pair of categories.

    Source: the correction of Cramér's V is Bergsma's (2013).
    """
    groups = {name: {name} for name in encoder.columns}
    for first, second in _pairs(encoder, features, threshold):
        joined = groups[first] | groups[second]
        groups.update(dict.fromkeys(joined, joined))
    found: list[tuple[str, ...]] = []
    for name in encoder.columns:
        group = tuple(column for column in encoder.columns if column in groups[name])
        if group[0] == name:
            found.append(group)
    return found


def _pairs(encoder: FeatureEncoder, features: Features, threshold: float) -> list[tuple[str, str]]:
    owners = number_owners(encoder)
    likeness = np.abs(_rank_correlations(features.numbers))
    pairs = [(owners[i], owners[j]) for i, j in np.argwhere(np.triu(likeness >= threshold, 1))]
    names = encoder.category_names
    for i, j in combinations(range(len(names)), 2):
        if cramers_v(features.categories[:, i], features.categories[:, j]) >= threshold:
            pairs.append((names[i], names[j]))
    return pairs


def number_owners(encoder: FeatureEncoder) -> list[str]:
    """The table's column that each column of `Features.numbers` comes from."""
    parts = [dates.name for dates in encoder.date_columns for _ in dates.parts]
    return [*(column.name for column in encoder.number_columns), *parts]


def _rank_correlations(numbers: np.ndarray) -> np.ndarray:
    """Spearman's correlations (F, F) of the columns of (N, F); missing values take the middle rank."""
    ranks = np.zeros(numbers.shape)
    for place in range(numbers.shape[1]):
        column = pl.Series(numbers[:, place]).fill_nan(None).rank()
        ranks[:, place] = column.fill_null(column.mean() or 0.0).to_numpy()
    ranks -= ranks.mean(axis=0) if len(ranks) else 0.0
    lengths = np.linalg.norm(ranks, axis=0)
    ranks /= np.where(lengths > 0, lengths, 1.0)  # a constant is like nothing
    return ranks.T @ ranks


def cramers_v(first: np.ndarray, second: np.ndarray) -> float:
    """Cramér's V of two columns of codes (N,), corrected for its bias; 0 where one of them is constant."""
    num_rows = len(first)
    (_, a), (_, b) = (np.unique(codes, return_inverse=True) for codes in (first, second))
    num_a, num_b = (int(codes.max(initial=-1)) + 1 for codes in (a, b))
    if min(num_a, num_b) < 2:
        return 0.0
    cells, counts = np.unique(a.astype(np.int64) * num_b + b, return_counts=True)
    expected = np.bincount(a)[cells // num_b].astype(np.float64) * np.bincount(b)[cells % num_b]
    phi2 = float((counts.astype(np.float64) ** 2 / expected).sum()) - 1.0
    rest = num_rows - 1.0
    by_chance = (num_a - 1) * (num_b - 1) / rest
    freedom = min(n - (n - 1) ** 2 / rest for n in (num_a, num_b)) - 1.0
    return float(np.sqrt(max(0.0, phi2 - by_chance) / freedom)) if freedom > 0 else 0.0
