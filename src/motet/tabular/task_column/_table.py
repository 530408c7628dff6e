"""A table whose rows each belong to one task: checked, split so that each task has its share, and encoded twice."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from motet._errors import RequestError, suggest
from motet.data import FeatureEncoder, Features, Schema
from motet.tabular._prepared import Prepared, prepare
from motet.tasks import Task

NO_TASK = "(none)"  # the task of rows that name none
SPLIT = "__part__"
GOLDEN = (5**0.5 - 1) / 2
SHARES = {"train": 0.64, "stop": 0.10, "choose": 0.10, "test": 0.16}


@dataclass(frozen=True)
class Encoded:
    """Rows as the learners take them.

    Args:
        with_task: features, the task column among the categories.
        without: features but for the task column.
        owners: (N,) names of the rows' tasks, text.
    """

    with_task: Features
    without: Features
    owners: np.ndarray

    def take(self, rows: np.ndarray) -> "Encoded":
        """The rows at (n,) places."""
        return Encoded(self.with_task.take(rows), self.without.take(rows), self.owners[rows])


@dataclass(frozen=True)
class TaskTable:
    """A labelled table made ready.

    Args:
        prepared: split and encoded, with the task column as a category.
        task: the fitted target.
        column: the task column.
        encoded: every row.
        notes: what a reader should know.
    """

    prepared: Prepared
    task: Task
    column: str
    encoded: Encoded
    notes: list[str]

    def labelled(self, part: str) -> np.ndarray:
        """The rows of one part of the split that have a label."""
        rows = getattr(self.prepared.split, part)
        return rows[self.prepared.targets(self.task, rows)[1]]

    def targets(self, rows: np.ndarray) -> np.ndarray:
        """Targets of labelled rows."""
        return self.prepared.targets(self.task, rows)[0]


def owners_of(frame: pl.DataFrame, column: str) -> np.ndarray:
    """The name of each row's task, (N,) text.

    Raises:
        RequestError: no such column, or one that cannot name tasks.
    """
    if column not in frame.columns:
        message = f"The table has no column '{column}' that says each row's task.{suggest(column, frame.columns)} "
        raise RequestError(message + "Check the name.")
    values = frame.get_column(column)
    if values.dtype.is_nested() or values.dtype.is_temporal() or values.dtype in (pl.Binary, pl.Object):
        message = f"The task column '{column}' holds {values.dtype}; names or whole numbers were expected. Convert it."
        raise RequestError(message)
    if values.dtype.is_float():
        whole = values.drop_nulls().drop_nans()
        if not bool((whole % 1 == 0).all()):
            message = f"The task column '{column}' holds broken numbers such as {whole.filter(whole % 1 != 0)[0]!r}; "
            raise RequestError(message + "names or whole numbers were expected. Convert it.")
        # A gap turns whole numbers into floats; 3 and 3.0 are one task.
        values = values.fill_nan(None).cast(pl.Int64)
    return values.cast(pl.String).replace("", None).fill_null(NO_TASK).to_numpy().astype(str)


def read_task_table(
    frame: pl.DataFrame,
    target: Task | str,
    column: str,
    *,
    split: str | None,
    split_column: str | None,
    roles: Mapping[str, str],
    seed: int,
) -> TaskTable:
    """Checks, splits and encodes; without a split of its own, each task has its share of every part.

    Raises:
        RequestError: the task column, the target, a role or the split cannot be as asked.
    """
    labels = target.label_columns if isinstance(target, Task) else (target, target.rpartition(":")[0])
    if column in labels:
        message = f"'{column}' was given as the task column and as the target; one column cannot be both. Name another."
        raise RequestError(message)
    owners = owners_of(frame, column)
    notes = _check(owners, column)
    if split is None and split_column is None:
        frame = frame.with_columns(_parts(owners, seed))
        split, split_column = "given", SPLIT
    prepared = prepare(
        frame,
        [target],
        split=split or "given",
        split_column=split_column,
        roles={column: "category", **roles},
        seed=seed,
    )
    shown = tuple(found for found in prepared.schema.columns if found.name != SPLIT)
    prepared = dataclasses.replace(prepared, schema=Schema(shown))
    encoder = without_column(prepared.encoder, column)
    encoded = Encoded(prepared.features, encoder.transform(frame), owners)
    table = TaskTable(prepared, prepared.tasks[0], column, encoded, notes)
    if not len(table.labelled("train")):
        message = f"Target '{table.task.name}' has no label in the train rows. Give rows with labels there."
        raise RequestError(message)
    return table


def without_column(encoder: FeatureEncoder, column: str) -> FeatureEncoder:
    """The encoder of all other columns."""
    kept = tuple(found for found in encoder.category_columns if found.name != column)
    return dataclasses.replace(encoder, category_columns=kept)


def _check(owners: np.ndarray, column: str) -> list[str]:
    num_tasks = len(np.unique(owners))
    if num_tasks > 0.5 * len(owners):
        message = (
            f"The task column '{column}' has {num_tasks} different values in {len(owners)} rows; tasks of two rows and "
            "more were expected. Name a column whose values repeat, or fit without a task column."
        )
        raise RequestError(message)
    notes = []
    if num_tasks == 1:
        notes.append(f"All rows have the one task '{owners[0]}' in '{column}', so there is nothing to share.")
    if empty := int((owners == NO_TASK).sum()):
        notes.append(f"{empty} rows have no '{column}'; together they are a task of their own.")
    return notes


def _parts(owners: np.ndarray, seed: int) -> pl.Series:
    """Each row's part; rows of one task, in random order, go where i · golden ratio modulo 1 falls among the shares."""
    draw = np.random.default_rng(seed)
    order = np.lexsort((draw.permutation(len(owners)), np.unique(owners, return_inverse=True)[1]))
    places = (np.arange(len(owners)) * GOLDEN + draw.random()) % 1.0
    words = np.empty(len(owners), dtype=object)
    cuts = np.cumsum(list(SHARES.values()))[:-1]
    words[order] = np.array(list(SHARES), dtype=object)[np.searchsorted(cuts, places, side="right")]
    return pl.Series(SPLIT, words.tolist())
