"""A table made ready for training: decided, split, encoded, with everything fitted on training rows only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from motet.data import (
    FeatureEncoder,
    Features,
    Leak,
    Schema,
    Split,
    TableRows,
    encode_targets,
    find_leaks,
    fit_tasks,
    infer_schema,
    infer_tasks,
    split_rows,
)
from motet.tasks import Task

HELD_OUT = ((0.10, 50_000), (0.10, 50_000), (0.16, 100_000))  # share and most rows of stop, choose and test


@dataclass(frozen=True)
class Prepared:
    """What training starts from.

    Args:
        tasks: the fitted tasks.
        schema: what each column is for.
        leaks: features that determine a target almost alone.
        encoder: of the feature columns.
        features: every row's.
        rows: every row as tensors.
        split: which rows are for what.
        groups: (N,) codes of a group split, or None.
        order: (N,) each row's place in time where the split is by time; None where the table's order is all there is.
    """

    tasks: list[Task]
    schema: Schema
    leaks: list[Leak]
    encoder: FeatureEncoder
    features: Features
    rows: TableRows
    split: Split
    groups: np.ndarray | None
    order: np.ndarray | None = None

    def matrix(self, rows: np.ndarray) -> np.ndarray:
        """Encoded numbers and category codes of the chosen rows as one float32 matrix, for trees."""
        return join(Features(self.features.numbers[rows], self.features.categories[rows]))

    def targets(self, task: Task, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The targets of those of the chosen rows that have this task's label, and a mask over `rows` of which do."""
        present = self.rows.present[task.name].numpy()[rows]
        return self.rows.targets[task.name].numpy()[rows][present], present

    def draws(self, rows: np.ndarray, *, block: int = 1) -> np.ndarray | None:
        """Which of the chosen rows a resample draws together: a group split's groups, or blocks of a series."""
        if self.groups is not None:
            return self.groups[rows]
        if block == 1:
            return None
        codes = np.empty(len(rows), dtype=np.int64)
        codes[self.sequence(rows)] = np.arange(len(rows)) // block
        return codes

    def sequence(self, rows: np.ndarray) -> np.ndarray:
        """The places of the chosen rows in the order of time, as far as it is known."""
        return np.arange(len(rows)) if self.order is None else np.argsort(self.order[rows], kind="stable")


def join(features: Features) -> np.ndarray:
    """Numbers (N, Fn) and categories (N, Fc) side by side, float32."""
    return np.concatenate([features.numbers, features.categories.astype(np.float32)], axis=1)


def _fractions(num_rows: int) -> tuple[float, float, float, float]:
    """Shares of train, stop, choose and test; past some rows more held out would cost time and prove no more."""
    stop, choose, test = (min(share, most / max(1, num_rows)) for share, most in HELD_OUT)
    return 1.0 - stop - choose - test, stop, choose, test


def prepare(
    frame: pl.DataFrame,
    targets: Sequence[Task | str],
    *,
    split: str,
    split_column: str | None,
    roles: Mapping[str, str],
    seed: int,
) -> Prepared:
    """Decides, splits and encodes a table.

    Raises:
        RequestError: a target, a column or the split cannot be as asked.
    """
    tasks = infer_tasks(frame, targets)
    parts = split_rows(frame, tasks, seed=seed, how=split, column=split_column, fractions=_fractions(frame.height))
    schema = infer_schema(
        frame,
        tasks,
        overrides=roles,
        split_column=split_column if split == "given" else None,
        group_column=split_column if split == "group" else None,
        time_column=split_column if split == "time" else None,
        rows=parts.train,
    )
    tasks = fit_tasks(frame, tasks, parts.train)
    leaks = find_leaks(frame, schema, tasks, rows=parts.train)
    encoder = FeatureEncoder.fit(frame, schema, parts.train)
    features = encoder.transform(frame)
    values, present = encode_targets(frame, tasks)
    groups = frame[split_column].to_physical().to_numpy() if split == "group" and split_column else None
    order = frame[split_column].rank("ordinal").to_numpy() if split == "time" and split_column else None
    return Prepared(tasks, schema, leaks, encoder, features, TableRows(features, values, present), parts, groups, order)
