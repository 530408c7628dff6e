"""Which rows are left out together, where a table is cut into pieces."""

import numpy as np

from motet.tabular._prepared import Prepared

STRETCHES = 0.1  # changes between test rows and others, of those that chance makes: below, test rows are stretches


def pieces_of(prepared: Prepared, rows: np.ndarray, num_pieces: int, seed: int) -> np.ndarray:
    """The piece of each row: by chance, by groups in a random order, or by stretches where the test rows are some."""
    draw = np.random.default_rng([seed, 13])
    if prepared.groups is None:
        places = np.arange(len(rows)) if _tests_stretches(prepared) else draw.permutation(len(rows))
        return places * num_pieces // len(rows)
    _, codes = np.unique(prepared.groups[rows], return_inverse=True)
    order = draw.permutation(codes.max() + 1)
    sizes = np.bincount(codes)
    before = np.empty(len(sizes), dtype=np.int64)
    before[order] = np.cumsum(sizes[order]) - sizes[order]  # rows of the groups that come earlier
    return (before * num_pieces // len(rows))[codes]


def _tests_stretches(prepared: Prepared) -> bool:
    """Whether the test rows follow each other in the table, as a later period's do, in the place of being scattered."""
    tested = np.zeros(len(prepared.features), dtype=bool)
    tested[prepared.split.test] = True
    by_chance = 2 * tested.mean() * (1 - tested.mean()) * len(tested)  # how often the next row is of the other sort
    return bool(np.count_nonzero(tested[1:] != tested[:-1]) < STRETCHES * by_chance)
