"""Label columns of a table as clean arrays."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from motet._errors import RequestError, suggest
from motet.tasks import Task


def label_arrays(frame: pl.DataFrame, task: Task) -> tuple[np.ndarray, np.ndarray]:
    """The labels of a task as `Task.fit` and `Task.encode` take them.

    Nulls, NaN and infinities are absent; an absent place holds some present value, so that the type stays right.

    Args:
        frame: holds the task's label columns.
        task: fitted or not.

    Returns:
        values: (N,) bool, int64, float64, or objects (str, or lists of str for a list column); (N, L) float64 with
            NaN where a label is unknown for several label columns.
        present: (N,) bool; with several columns true where any of them has a label.

    Raises:
        RequestError: a label column that does not exist, or of a type that cannot be a label.
    """
    for name in task.label_columns:
        if name not in frame.columns:
            message = f"Task '{task.name}' reads the column '{name}', which the table does not have."
            message += f"{suggest(name, frame.columns)} Check the name of the target."
            raise RequestError(message)
    if len(task.label_columns) == 1:
        return _one(frame.get_column(task.label_columns[0]))
    columns = [_as_float(frame.get_column(name), task.name) for name in task.label_columns]
    values = np.stack(columns, axis=1)
    return values, np.logical_not(np.isnan(values).all(axis=1))


def fit_tasks(frame: pl.DataFrame, tasks: Sequence[Task], rows: np.ndarray) -> list[Task]:
    """Fits each task on the labels of the training rows.

    Args:
        frame: the whole table.
        tasks: as asked for.
        rows: (n,) int64, the training rows.

    Returns:
        fitted copies, in the same order.
    """
    fitted = []
    for task in tasks:
        values, present = label_arrays(frame.select(task.label_columns)[rows], task)
        fitted.append(task.fit(values, present))
    return fitted


def encode_targets(frame: pl.DataFrame, tasks: Sequence[Task]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Targets and presence of every row by task name; a task whose label columns are not here is left out."""
    targets: dict[str, np.ndarray] = {}
    present: dict[str, np.ndarray] = {}
    for task in tasks:
        if any(name in frame.columns for name in task.label_columns):
            targets[task.name], present[task.name] = task.encode(*label_arrays(frame, task))
    return targets, present


def _one(column: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    dtype = column.dtype
    if isinstance(dtype, pl.List | pl.Array):
        present = column.is_not_null().to_numpy()
        values = np.empty(len(column), dtype=object)
        values[:] = [[] if row is None else list(row) for row in column.to_list()]
        return values, present
    if dtype.is_temporal() or dtype.is_nested() or dtype in (pl.Binary, pl.Object):
        message = f"The target '{column.name}' holds {dtype}; a target is true or false, a number, text or a list of "
        message += "text. Convert the column first, for example a date to a number of days."
        raise RequestError(message)
    if dtype.is_float() or dtype.is_decimal():
        column = column.cast(pl.Float64)
        column = pl.select(pl.when(column.is_finite()).then(column)).to_series()
    elif dtype.is_integer():
        column = column.cast(pl.Int64, strict=False)
    elif dtype == pl.Null:
        column = column.cast(pl.Float64)
    elif dtype != pl.Boolean:
        column = column.cast(pl.String)
    present = column.is_not_null().to_numpy()
    if not present.all():
        stand_in = column[int(present.argmax())] if present.any() else _neutral(column.dtype)
        column = column.fill_null(stand_in)
    return np.array(column.to_numpy()), present


def _neutral(dtype: pl.DataType) -> object:
    if dtype == pl.String:
        return ""
    return False if dtype == pl.Boolean else 0


def _as_float(column: pl.Series, task: str) -> np.ndarray:
    if not (column.dtype.is_numeric() or column.dtype in (pl.Boolean, pl.Null)):
        message = (
            f"Task '{task}' has several label columns, and '{column.name}' holds {column.dtype}; expected numbers "
        )
        message += "or true and false in each. Convert the column, or make it a task of its own."
        raise RequestError(message)
    values = np.array(column.cast(pl.Float64).to_numpy(), dtype=np.float64)
    return np.where(np.isfinite(values), values, np.nan)
