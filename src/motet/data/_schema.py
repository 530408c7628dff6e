"""What each column of a table is for, with the reason."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import polars as pl

from motet._errors import RequestError, suggest
from motet.data._roles import judge
from motet.tasks import Task

ROLES = ("number", "category", "date", "text", "identifier", "constant", "target", "split", "ignored")
FEATURE_ROLES = ("number", "category", "date")
GIVEN_ROLES = ("number", "category", "date", "text", "identifier", "ignored")


@dataclass(frozen=True)
class Column:
    """One column's role, whether it is a feature, and why.

    Args:
        name: the column.
        role: one of `ROLES`.
        used: whether models read it.
        reason: in a few words, with the figures that decided.
    """

    name: str
    role: str
    used: bool
    reason: str


@dataclass(frozen=True)
class Schema:
    """The decision on every column of a table, in the table's order."""

    columns: tuple[Column, ...]

    def features(self, role: str | None = None) -> tuple[str, ...]:
        """The columns that models read: all of them, or those of one role."""
        return tuple(column.name for column in self.columns if column.used and role in (None, column.role))

    def lines(self) -> list[str]:
        """One line a column to print: name, role, whether it is used, reason."""
        widest = max((len(column.name) for column in self.columns), default=0)
        return [
            f"{column.name:<{widest}}  {column.role:<10}  {'used    ' if column.used else 'not used'}  {column.reason}"
            for column in self.columns
        ]

    def to_dict(self) -> list[dict[str, Any]]:
        """The schema as plain JSON data, as `run.json` holds it."""
        return [asdict(column) for column in self.columns]

    @classmethod
    def from_dict(cls, data: Sequence[Mapping[str, Any]]) -> Self:
        """The way back from `to_dict`."""
        return cls(tuple(Column(**column) for column in data))


def infer_schema(
    frame: pl.DataFrame,
    tasks: Sequence[Task],
    *,
    overrides: Mapping[str, str] | None = None,
    split_column: str | None = None,
    group_column: str | None = None,
    time_column: str | None = None,
    rows: np.ndarray | None = None,
) -> Schema:
    """Decides what each column is for, from the training rows.

    Label columns, the column of a given split and the column of groups are no features. A time column is one if it
    holds dates; as a bare number it would only say how late a row is, which no training row can teach. The rules for
    the others stand in `judge`.

    Args:
        frame: the table.
        tasks: what is to be predicted.
        overrides: roles by column name, which win over the rules.
        split_column: says which part a row belongs to.
        group_column: rows of one value stay in one part.
        time_column: later rows are test rows.
        rows: (n,) int64, the training rows; all when None.

    Raises:
        RequestError: a column that does not exist, a role that does not exist or that the column cannot have.
    """
    overrides = overrides or {}
    targets = {column: task.name for task in tasks for column in task.label_columns}
    special = {split_column: "says which part a row belongs to", group_column: "its groups are kept together"}
    special = {name: reason for name, reason in special.items() if name is not None}
    _check_names(frame, [*targets, *special, *overrides, *([time_column] if time_column else [])])
    _check_overrides(overrides, targets)
    columns = []
    for name, dtype in frame.schema.items():
        if name in targets:
            columns.append(Column(name, "target", used=False, reason=f"label of task '{targets[name]}'"))
        elif name in overrides:
            columns.append(_overridden(frame.get_column(name), overrides[name]))
        elif name in special:
            columns.append(Column(name, "split", used=False, reason=special[name]))
        elif name == time_column and not dtype.is_temporal():
            columns.append(Column(name, "split", used=False, reason="rows are split in its order"))
        else:
            values = frame.get_column(name)
            role, reason = judge(values if rows is None else values.gather(rows))
            columns.append(Column(name, role, used=role in FEATURE_ROLES, reason=reason))
    return Schema(tuple(columns))


def _check_names(frame: pl.DataFrame, names: Sequence[str]) -> None:
    for name in names:
        if name not in frame.columns:
            message = f"The table has no column '{name}'.{suggest(name, frame.columns)} Check the name."
            raise RequestError(message)


def _check_overrides(overrides: Mapping[str, str], targets: Mapping[str, str]) -> None:
    for name, role in overrides.items():
        if role not in GIVEN_ROLES:
            message = f"Column '{name}' was given the role '{role}', which a column cannot be given."
            message += f"{suggest(role, GIVEN_ROLES)} Choose one of {', '.join(GIVEN_ROLES)}."
            raise RequestError(message)
        if name in targets:
            message = f"Column '{name}' was given the role '{role}', but it is the label of task '{targets[name]}'."
            message += " A label is never a feature; drop the role or the target."
            raise RequestError(message)


def _overridden(values: pl.Series, role: str) -> Column:
    dtype = values.dtype
    nested = dtype.is_nested() or dtype in (pl.Binary, pl.Object)
    can = {
        "number": dtype.is_numeric() or dtype in (pl.Boolean, pl.String, pl.Categorical, pl.Enum),
        "category": not nested and not dtype.is_temporal(),
        "date": dtype.is_temporal(),
    }
    if not can.get(role, True):
        message = f"Column '{values.name}' was given the role '{role}', but it holds {dtype}."
        message += " Convert the column first, or give it another role."
        raise RequestError(message)
    return Column(values.name, role, used=role in FEATURE_ROLES, reason="as asked")
