"""The columns of a table as inputs of a graph, one each, and as the arrays that it takes."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from motet._errors import RequestError
from motet.data import FeatureEncoder

UNSEEN = "\x00unseen"
NO_DATE = int(np.iinfo(np.int64).min)


@dataclass(frozen=True)
class Input:
    """One input of the graph, (rows,).

    Args:
        name: the column's.
        type: `float64`, `int64` or `text`.
        holds: what it is, for a person.
        missing: how a missing value is said: `NaN`, the least int64, or the empty text; None where it cannot be said.
    """

    name: str
    type: str
    holds: str
    missing: str | int | None


def inputs_of(encoder: FeatureEncoder) -> list[Input]:
    """The inputs of the graph, in the encoder's order.

    Raises:
        RequestError: a column without a name.
    """
    found = [Input(column.name, "float64", "number", "NaN") for column in encoder.number_columns]
    found += [Input(column.name, "int64", "microseconds since 1970", NO_DATE) for column in encoder.date_columns]
    for column in encoder.category_columns:
        if column.source == "text":
            missing = None if "" in column.levels else ""
            found.append(Input(column.name, "text", "category", missing))
        else:
            holds = "1 for true, 0 for false" if column.source == "boolean" else "category, a number"
            found.append(Input(column.name, "float64", holds, "NaN"))
    if any(not one.name for one in found):
        message = (
            "One of the model's columns has no name (''); an ONNX input needs one. Name the column and fit again, or "
            "serve this run from Python."
        )
        raise RequestError(message)
    return found


def keys_of(levels: tuple[str, ...], source: str) -> list[str] | list[float]:
    """What arrives for each level: texts as they are, numbers as numbers, true and false as 1 and 0."""
    if source == "text":
        return list(levels)
    return [{"true": 1.0, "false": 0.0}[level] if source == "boolean" else float(level) for level in levels]


def feed(encoder: FeatureEncoder, frame: pl.DataFrame, task_column: str = "") -> dict[str, np.ndarray]:
    """A table's columns as the graph takes them; the task column's own values, since rare tasks are no levels."""
    found: dict[str, np.ndarray] = {}
    for numbers in encoder.number_columns:
        found[numbers.name] = np.ascontiguousarray(numbers.read(frame[numbers.name]), dtype=np.float64)
    for dates in encoder.date_columns:
        found[dates.name] = dates.read(frame[dates.name]).astype(np.int64)
    for column in encoder.category_columns:
        keys = keys_of(column.levels, column.source)
        is_text = column.source == "text"
        strange = UNSEEN if is_text else _other(keys)
        names = np.array(["" if is_text else np.nan, strange, *keys], dtype=object if is_text else np.float64)
        if column.name == task_column:
            values = frame[column.name]
            found[column.name] = (
                values.cast(pl.String).fill_null("").to_numpy().astype(object)
                if is_text
                else values.cast(pl.Float64).fill_null(np.nan).to_numpy()
            )
            continue
        found[column.name] = names[column.read(frame[column.name])]
    return found


def _other(keys: list[str] | list[float]) -> float:
    """A number that is none of the levels."""
    return max((float(key) for key in keys), default=0.0) + 1.5
