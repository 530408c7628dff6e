"""The labelled rows of a table that a served model is held against."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from motet._errors import RequestError
from motet.data import encode_targets
from motet.tabular._guard import FEWEST_DRAWS, FEWEST_ROWS, draw_weights, interval
from motet.tabular._served import Served
from motet.tasks import Task


@dataclass(frozen=True)
class Labelled:
    """A table's rows with the labels that it has.

    Args:
        frame: the rows.
        tasks: the asked-for tasks whose label columns are there, by name.
        targets: (N,) or (N, L) by task, as tasks encode them.
        present: (N,) by task, which rows have its label.
        groups: (N,) codes of rows that belong together, where the model was split by groups; else None.
    """

    frame: pl.DataFrame
    tasks: Mapping[str, Task]
    targets: Mapping[str, np.ndarray]
    present: Mapping[str, np.ndarray]
    groups: np.ndarray | None = None

    @classmethod
    def read(
        cls, served: Served, frame: pl.DataFrame, tasks: Sequence[str] | None, split: Mapping[str, Any]
    ) -> "Labelled":
        """Finds the labels; `split` is the run's, which says what rows belong together.

        Raises:
            RequestError: no column of any asked-for target is in the table.
        """
        names = served.names(tasks)
        found = {name: served.answers[name].task for name in names}
        there = {name: task for name, task in found.items() if set(task.label_columns) <= set(frame.columns)}
        if not there:
            message = (
                f"The table has no label column of {', '.join(names)}; evaluating compares predictions with labels. "
                "Use predict where there are none."
            )
            raise RequestError(message)
        targets, present = encode_targets(frame, list(there.values()))
        column = split.get("column") if split.get("how") == "group" else None
        groups = codes_of(frame.get_column(column)) if column in frame.columns else None
        return cls(frame, there, targets, present, groups)

    def take(self, rows: np.ndarray) -> "Labelled":
        """The rows at (n,) places."""
        return Labelled(
            self.frame[rows],
            self.tasks,
            {name: values[rows] for name, values in self.targets.items()},
            {name: values[rows] for name, values in self.present.items()},
            None if self.groups is None else self.groups[rows],
        )

    def sample(self, most: int, seed: int) -> "Labelled":
        """The rows that have some label, or as many of them drawn at random, in the table's order."""
        rows = np.flatnonzero(np.any(list(self.present.values()), axis=0))
        if len(rows) > most:
            rows = np.sort(np.random.default_rng([seed, 5]).choice(rows, most, replace=False))
        return self.take(rows)

    def weights(self, rows: np.ndarray, *, resamples: int, seed: int) -> np.ndarray:
        """Resamples (R, n) of the rows at (n,) places, by groups where rows belong together."""
        groups = None if self.groups is None else self.groups[rows]
        return draw_weights(len(rows), resamples=resamples, seed=seed, groups=groups)

    def interval(self, draws: np.ndarray, rows: np.ndarray) -> tuple[float, float]:
        """The 95% interval of what resamples of these rows gave; NaN where rows or groups are too few to say."""
        if self.groups is None:
            return interval(draws) if len(rows) >= FEWEST_ROWS else (np.nan, np.nan)
        num_groups = len(np.unique(self.groups[rows]))
        if len(rows) < FEWEST_ROWS or num_groups < FEWEST_DRAWS:
            return np.nan, np.nan
        return interval(draws, num_groups)


def codes_of(values: pl.Series) -> np.ndarray:
    """A code (N,) for each distinct value of a column; missing ones share one."""
    return np.unique(values.cast(pl.String).fill_null("").to_numpy().astype(str), return_inverse=True)[1]
