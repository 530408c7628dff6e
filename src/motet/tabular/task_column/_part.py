"""One part of the split, as choosing and measuring need it: who is asked, and which resamples prove something."""

import itertools
from collections.abc import Mapping

import numpy as np

from motet.tabular._dependence import block_length, row_errors
from motet.tabular._guard import HeldOut, draw_weights
from motet.tabular.task_column._table import TaskTable


class Part:
    """The labelled rows of one part, with every model's estimates, under resamples that are drawn once.

    A group split's groups are drawn whole, and so are blocks of rows that stay alike within their task, in the order
    of time or of the table.

    Args:
        table: the table.
        rows: numbers of the part's labelled rows.
        estimates: of these rows, by model.
        resamples: R.
        seed: of the resamples.
    """

    def __init__(
        self, table: TaskTable, rows: np.ndarray, estimates: Mapping[str, np.ndarray], *, resamples: int, seed: int
    ) -> None:
        self.table, self.rows, self.estimates = table, rows, dict(estimates)
        self.owners, self.targets = table.encoded.owners[rows], table.targets(rows)
        self._together = self._drawn_together()
        self._weights = draw_weights(len(rows), resamples=resamples, seed=seed, groups=self._together)

    def held_out(self, mask: np.ndarray | None = None) -> HeldOut:
        """All rows, or some of them."""
        chosen = slice(None) if mask is None else mask
        draws = None if self._together is None else len(np.unique(self._together[chosen]))
        estimates = {name: values[chosen] for name, values in self.estimates.items()}
        return HeldOut(self.table.task, estimates, self.targets[chosen], self._weights[:, chosen], draws=draws)

    def _drawn_together(self) -> np.ndarray | None:
        prepared = self.table.prepared
        if prepared.groups is not None:
            return prepared.groups[self.rows]
        time = np.arange(len(self.rows)) if prepared.order is None else prepared.order[self.rows]
        _, codes = np.unique(self.owners, return_inverse=True)
        order = np.lexsort((time, codes))
        errors = [self._centred(name, codes)[order] for name in self.estimates if name != "constant"]
        block = max((block_length(one - other) for one, other in itertools.combinations(errors, 2)), default=1)
        if block == 1:
            return None
        together = np.empty(len(self.rows), dtype=np.int64)
        together[order] = np.arange(len(self.rows)) // block
        return together

    def _centred(self, name: str, codes: np.ndarray) -> np.ndarray:
        """A model's errors by row, less their mean over the row's task: that a task is hard is no likeness in time."""
        errors = row_errors(self.table.task, self.estimates[name], self.targets)
        return errors - (np.bincount(codes, errors) / np.maximum(np.bincount(codes), 1))[codes]
