"""The labelled rows of a table that a served model is held against."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import polars as pl

from motet._errors import RequestError
from motet.data import FeatureEncoder, encode_targets
from motet.tabular._dependence import block_length
from motet.tabular._guard import FEWEST_DRAWS, FEWEST_ROWS, interval
from motet.tasks import Task


class Answers(Protocol):
    """How a target is answered, as far as scoring needs it."""

    @property
    def task(self) -> Task:
        """The fitted task."""


class Serving(Protocol):
    """A served model, as far as scoring needs it."""

    @property
    def encoder(self) -> FeatureEncoder:
        """Of the features."""

    @property
    def answers(self) -> Mapping[str, Answers]:
        """By target."""

    def names(self, tasks: Sequence[str] | None) -> list[str]:
        """The asked-for targets, all of them for None, checked."""

    def estimate(self, frame: pl.DataFrame, tasks: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Calibrated estimates of every row by target."""


@dataclass(frozen=True)
class Labelled:
    """A table's rows with the labels that it has.

    Args:
        frame: the rows.
        tasks: the asked-for tasks whose label columns are there, by name.
        targets: (N,) or (N, L) by task, as tasks encode them.
        present: (N,) by task, which rows have its label.
        groups: (N,) codes of rows that belong together, where the model was split by groups; else None.
        order: (N,) each row's place in time where the model was split by time; None where the table's order counts.
    """

    frame: pl.DataFrame
    tasks: Mapping[str, Task]
    targets: Mapping[str, np.ndarray]
    present: Mapping[str, np.ndarray]
    groups: np.ndarray | None = None
    order: np.ndarray | None = None

    @classmethod
    def read(
        cls, served: Serving, frame: pl.DataFrame, tasks: Sequence[str] | None, split: Mapping[str, Any]
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
        time = split.get("column") if split.get("how") == "time" else None
        order = frame.get_column(time).rank("ordinal").to_numpy() if time in frame.columns else None
        return cls(frame, there, targets, present, groups, order)

    def take(self, rows: np.ndarray) -> "Labelled":
        """The rows at (n,) places."""
        return Labelled(
            self.frame[rows],
            self.tasks,
            {name: values[rows] for name, values in self.targets.items()},
            {name: values[rows] for name, values in self.present.items()},
            None if self.groups is None else self.groups[rows],
            None if self.order is None else self.order[rows],
        )

    def sample(self, most: int, seed: int) -> "Labelled":
        """The rows that have some label, or as many of them drawn at random, in the table's order."""
        rows = np.flatnonzero(np.any(list(self.present.values()), axis=0))
        if len(rows) > most:
            rows = np.sort(np.random.default_rng([seed, 5]).choice(rows, most, replace=False))
        return self.take(rows)

    def together(self, rows: np.ndarray, values: np.ndarray) -> np.ndarray | None:
        """Which of the rows at (n,) places a resample draws as one: codes (n,), or None for each row alone.

        Groups are drawn whole. Else rows that follow each other are drawn in blocks as long as `values` stay alike, in
        the order of time or of the table: rows of a series are not independent evidence.

        Args:
            rows: places.
            values: (n,) what is averaged.
        """
        if self.groups is not None:
            return self.groups[rows]
        order = np.arange(len(rows)) if self.order is None else np.argsort(self.order[rows], kind="stable")
        block = block_length(values[order])
        if block == 1:
            return None
        codes = np.empty(len(rows), dtype=np.int64)
        codes[order] = np.arange(len(rows)) // block
        return codes


def interval_of(draws: np.ndarray, num_rows: int, together: np.ndarray | None) -> tuple[float, float]:
    """The 95% interval of what resamples of so many rows gave; NaN where rows, groups or blocks are too few to say."""
    if together is None:
        return interval(draws) if num_rows >= FEWEST_ROWS else (np.nan, np.nan)
    num_draws = len(np.unique(together))
    if num_rows < FEWEST_ROWS or num_draws < FEWEST_DRAWS:
        return np.nan, np.nan
    return interval(draws, num_draws)


def codes_of(values: pl.Series) -> np.ndarray:
    """A code (N,) for each distinct value of a column; missing ones share one."""
    return np.unique(values.cast(pl.String).fill_null("").to_numpy().astype(str), return_inverse=True)[1]
