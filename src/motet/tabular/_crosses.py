"""Which columns belong together: crosses whose every combination is worth a vector of its own."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from motet.tabular._prepared import Prepared
from motet.tabular._taught import label_width
from motet.tasks import Multiclass, Ordinal, Task

Cross = tuple[int, ...]

FIT_ROWS, JUDGE_ROWS = 100_000, 60_000  # to learn means from, and to see what they are worth
FIRST_LOOK = 0.5  # of these rows for all pairs
MOST_COLUMNS = 24  # that pairs are made of: those that explain most alone
POOL = 24  # pairs that are looked at again
MOST_CROSSES, MOST_MEMBERS = 10, 3
MOST_CELLS, MOST_IN_ALL = 65_536, 131_072  # six numbers of two bytes each: a megabyte and a half
LEAST_GAIN = 0.0015  # of what is unexplained, mean over the tasks
ROUNDS = 2  # over the columns alone, for each finds what the others have left
DOUBT = 10.0  # rows' worth of zero in a cell's mean


class Crosses:
    """Finds crosses of columns one by one, each by what it explains of what those before have left.

    What is explained is measured on other rows than the means come from, so that a cross with a row or two in each of
    its combinations counts for nothing.

    Args:
        codes: (N, F) codes of each column; the rows in any order that is not the table's.
        sizes: number of codes of each column.
        labels: (N, K) label columns, centred and scaled, zero where there is none.
        shares: (K,) how much a label column counts.
    """

    def __init__(self, codes: np.ndarray, sizes: Sequence[int], labels: np.ndarray, shares: np.ndarray) -> None:
        self.codes, self.sizes, self.shares = codes.astype(np.int64), list(sizes), shares
        self.num_fit = len(codes) * FIT_ROWS // (FIT_ROWS + JUDGE_ROWS)
        self.rest = labels.astype(np.float64)

    def find(self) -> list[Cross]:
        """The crosses, best first."""
        for column in [*range(len(self.sizes))] * ROUNDS:
            self._take((column,))
        pool = self._first_look()
        chosen: list[Cross] = []
        left = MOST_IN_ALL
        while pool and len(chosen) < MOST_CROSSES:
            gains = {cross: self.gain(cross) for cross in pool}
            best = max(pool, key=lambda cross: gains[cross])
            if gains[best] < LEAST_GAIN:
                break
            self._take(best)
            chosen.append(best)
            left -= self.cells(best)
            pool = sorted((cross for cross in pool if gains[cross] > 0), key=lambda cross: -gains[cross])[:POOL]
            pool = [*dict.fromkeys([*pool, *self._wider(best)])]
            pool = [cross for cross in pool if cross not in chosen and self.cells(cross) <= min(left, MOST_CELLS)]
        return chosen

    def gain(self, cross: Cross, part: float = 1.0) -> float:
        """The share of what is unexplained that this cross explains on rows that its means have not seen."""
        fit, judge = slice(int(self.num_fit * part)), slice(self.num_fit, None)
        if part < 1.0:
            judge = slice(self.num_fit, self.num_fit + int((len(self.codes) - self.num_fit) * part))
        code, rest = self._code(cross), self.rest[judge]
        left = rest - self._means(code, cross, fit)[code[judge]]
        before, after = np.square(rest).mean(axis=0), np.square(left).mean(axis=0)
        some = before > 0  # a task without a label has nothing to explain
        return float(np.dot(self.shares[some], 1.0 - after[some] / before[some]))

    def cells(self, cross: Cross) -> int:
        """How many combinations a cross has."""
        return int(np.prod([self.sizes[column] for column in cross]))

    def _wider(self, cross: Cross) -> list[Cross]:
        """The cross with one more column, as far as it may grow."""
        if len(cross) == MOST_MEMBERS:
            return []
        return [tuple(sorted((*cross, column))) for column in range(len(self.sizes)) if column not in cross]

    def _first_look(self) -> list[Cross]:
        """The best pairs on a part of the rows, of the columns whose pairs are not too large."""
        alone = [self.gain((column,), FIRST_LOOK) for column in range(len(self.sizes))]
        columns: list[int] = sorted(np.argsort(alone, kind="stable")[::-1][:MOST_COLUMNS].tolist())
        pairs: list[Cross] = [pair for pair in combinations(columns, 2) if self.cells(pair) <= MOST_CELLS]
        gains = {pair: self.gain(pair, FIRST_LOOK) for pair in pairs}
        return sorted(pairs, key=lambda pair: -gains[pair])[:POOL]

    def _take(self, cross: Cross) -> None:
        code = self._code(cross)
        self.rest -= self._means(code, cross, slice(self.num_fit))[code]

    def _code(self, cross: Cross) -> np.ndarray:
        code = np.zeros(len(self.codes), dtype=np.int64)
        for column in cross:
            code = code * self.sizes[column] + self.codes[:, column]
        return code

    def _means(self, code: np.ndarray, cross: Cross, rows: slice) -> np.ndarray:
        cells, code = self.cells(cross), code[rows]
        counts = np.bincount(code, minlength=cells) + DOUBT
        sums = [np.bincount(code, weights=column, minlength=cells) for column in self.rest[rows].T]
        return np.stack(sums, axis=1) / counts[:, None]


def find_crosses(prepared: Prepared, edges: np.ndarray, sizes: Sequence[int], *, seed: int) -> list[Cross]:
    """Crosses of a table's columns that explain its labels, from training rows alone.

    Args:
        prepared: the table.
        edges: (Fn, bins + 1) bin edges of the number columns, +inf in unused places.
        sizes: codes of each column, numbers before categories.
        seed: of the rows' order.

    Cost: a mean of each label column in each cell, over 160,000 rows, for 276 pairs and a few hundred triples at most.
    """
    rows = np.random.default_rng([seed, 13]).permutation(prepared.split.train)[: FIT_ROWS + JUDGE_ROWS]
    numbers = prepared.features.numbers[rows]
    codes = [_bins(numbers[:, place], column) for place, column in enumerate(edges)]
    columns = np.concatenate([np.reshape(codes, (len(codes), len(rows))).T, prepared.features.categories[rows]], axis=1)
    labels = [_labels(prepared, task, rows) for task in prepared.tasks]
    shares = np.concatenate([np.full(part.shape[1], 1.0 / (len(labels) * part.shape[1])) for part in labels])
    return Crosses(columns, sizes, np.concatenate(labels, axis=1), shares).find()


def _bins(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The codes of `LookupEncoder`: 0 for missing, then one more for each edge that is reached."""
    return np.where(np.isnan(values), 0, np.searchsorted(edges, values, side="right") + 1)


def _labels(prepared: Prepared, task: Task, rows: np.ndarray) -> np.ndarray:
    """A task's labels as columns (N, K), a class each, centred and scaled; zero where there is none."""
    known = prepared.rows.present[task.name].numpy()[rows]
    values = prepared.rows.targets[task.name].numpy()[rows]
    if isinstance(task, (Multiclass, Ordinal)):
        columns = values[:, None] == np.arange(len(task.classes or ()))
    else:
        columns = values.reshape(len(rows), label_width(task))
    if not known.any():
        return np.zeros((len(rows), columns.shape[1]))
    spread = columns[known].std(axis=0, dtype=np.float64)
    scaled = (columns - columns[known].mean(axis=0, dtype=np.float64)) / np.where(spread > 0, spread, 1.0)
    return np.where(known[:, None], scaled, 0.0)
