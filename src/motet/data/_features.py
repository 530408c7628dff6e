"""Feature columns to the arrays that models take, fitted on training rows only."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import polars as pl

from motet._errors import RequestError, suggest
from motet.data._columns import LARGEST_FLOAT32, CategoryColumn, DateColumn, NumberColumn, positions
from motet.data._schema import Schema

SMALL = 32  # rows up to which plain Python is faster than one polars call a column


@dataclass(frozen=True)
class Features:
    """Encoded rows.

    Args:
        numbers: (N, Fn) float32, NaN where missing.
        categories: (N, Fc) int32, 0 missing, 1 unseen or rare, 2… known levels.
    """

    numbers: np.ndarray
    categories: np.ndarray

    def __len__(self) -> int:
        """How many rows."""
        return len(self.numbers)

    def take(self, rows: np.ndarray) -> "Features":
        """The rows at (n,) int64 places, copied."""
        return Features(self.numbers[rows], self.categories[rows])


@dataclass(frozen=True)
class FeatureEncoder:
    """Turns a table's features into numbers and category codes; a row gets the same codes alone and in a batch.

    Infinite numbers are missing ones. Dates become days since 1970 and those of month, day, weekday, day of the year
    and hour that vary. Booleans are categories. When encoding, whole numbers may come as floats and numbers as text
    ("12.5", "NA"), dates as ISO text; any other change of type is refused. Columns that are not features are ignored.

    Args:
        number_columns: in the schema's order.
        date_columns: their parts follow the number columns.
        category_columns: in the schema's order.
    """

    number_columns: tuple[NumberColumn, ...]
    date_columns: tuple[DateColumn, ...]
    category_columns: tuple[CategoryColumn, ...]

    @classmethod
    def fit(
        cls, frame: pl.DataFrame, schema: Schema, rows: np.ndarray, *, min_count: int = 5, max_levels: int = 1000
    ) -> Self:
        """Learns offsets, date parts and levels.

        Args:
            frame: the table.
            schema: which columns are features, and of which role.
            rows: (n,) int64, the training rows.
            min_count: levels seen less often share code 1 with unseen ones.
            max_levels: the most frequent levels that a column keeps.
        """

        def values(name: str) -> pl.Series:
            return frame.get_column(name).gather(rows)

        return cls(
            tuple(NumberColumn.fit(values(name)) for name in schema.features("number")),
            tuple(DateColumn.fit(values(name)) for name in schema.features("date")),
            tuple(
                CategoryColumn.fit(values(name), min_count=min_count, max_levels=max_levels)
                for name in schema.features("category")
            ),
        )

    @cached_property
    def number_names(self) -> tuple[str, ...]:
        """The names of `Features.numbers`' columns; a date's parts are called `column.part`."""
        parts = [f"{column.name}.{part}" for column in self.date_columns for part in column.parts]
        return (*(column.name for column in self.number_columns), *parts)

    @property
    def category_names(self) -> tuple[str, ...]:
        """The names of `Features.categories`' columns."""
        return tuple(column.name for column in self.category_columns)

    @property
    def category_sizes(self) -> tuple[int, ...]:
        """How many codes each category column has."""
        return tuple(column.size for column in self.category_columns)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The table columns that `transform` reads."""
        parts = (self.number_columns, self.date_columns, self.category_columns)
        return tuple(column.name for group in parts for column in group)

    def transform(self, frame: pl.DataFrame) -> Features:
        """Encodes rows.

        Args:
            frame: has the columns that were features at training, of the same types.

        Raises:
            RequestError: a missing column, or one of another type.
        """
        self._check(frame.columns)
        if frame.height <= SMALL:
            places = positions(frame.columns)
            order = [places[name] for name in self.columns]
            return self._encode([[row[place] for place in order] for row in frame.rows()])
        numbers = np.empty((frame.height, len(self.number_names)), dtype=np.float32)
        categories = np.empty((frame.height, len(self.category_columns)), dtype=np.int32)
        for place, column in enumerate(self.number_columns):
            numbers[:, place] = column.finish(column.read(frame.get_column(column.name)))
        place = len(self.number_columns)
        for dates in self.date_columns:
            for part in dates.finish(dates.read(frame.get_column(dates.name))):
                numbers[:, place] = part
                place += 1
        for place, levels in enumerate(self.category_columns):
            categories[:, place] = levels.read(frame.get_column(levels.name))
        return Features(numbers, categories)

    def transform_row(self, row: Mapping[str, Any]) -> Features:
        """Encodes one row given as a mapping from column to plain Python value; the same as `transform` of one row.

        Raises:
            RequestError: a missing column, or a value of another type.
        """
        try:
            values = [row[name] for name in self.columns]
        except KeyError:
            self._check(list(row))
            raise
        return self._encode([values])

    def to_dict(self) -> dict[str, Any]:
        """The encoder as plain JSON data."""
        return {
            "numbers": [asdict(column) for column in self.number_columns],
            "dates": [{"name": column.name, "parts": list(column.parts)} for column in self.date_columns],
            "categories": [asdict(column) | {"levels": list(column.levels)} for column in self.category_columns],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The way back from `to_dict`."""
        return cls(
            tuple(NumberColumn(**column) for column in data["numbers"]),
            tuple(DateColumn(column["name"], tuple(column["parts"])) for column in data["dates"]),
            tuple(
                CategoryColumn(column["name"], column["source"], tuple(column["levels"]))
                for column in data["categories"]
            ),
        )

    def _check(self, names: Sequence[str]) -> None:
        present = set(names)
        missing = [name for name in self.columns if name not in present]
        if missing:
            others = f" (and {len(missing) - 1} others)" if len(missing) > 1 else ""
            message = f"The table lacks the column '{missing[0]}'{others}, which the model reads."
            message += f"{suggest(missing[0], names)} Add the column, with empty values where they are unknown."
            raise RequestError(message)

    @cached_property
    def _offsets(self) -> np.ndarray:
        return np.array([column.offset for column in self.number_columns])

    def _encode(self, rows: Sequence[Sequence[Any]]) -> Features:
        """Rows of plain values, in the order of `columns`."""
        first_date = len(self.number_columns)
        first_category = first_date + len(self.date_columns)
        numbers = np.empty((len(rows), len(self.number_names)), dtype=np.float32)
        categories = np.empty((len(rows), len(self.category_columns)), dtype=np.int32)
        if first_date:
            wide = np.array([self._numbers(row) for row in rows], dtype=np.float64).reshape(len(rows), first_date)
            wide -= self._offsets
            numbers[:, :first_date] = wide.clip(-LARGEST_FLOAT32, LARGEST_FLOAT32)
        place = first_date
        for index, dates in enumerate(self.date_columns, start=first_date):
            moments = np.array([dates.read_one(row[index]) for row in rows], dtype="M8[us]")
            for part in dates.finish(moments):
                numbers[:, place] = part
                place += 1
        for line, row in enumerate(rows):
            values = row[first_category:]
            categories[line] = [
                column.read_one(value) for column, value in zip(self.category_columns, values, strict=True)
            ]
        return Features(numbers, categories)

    def _numbers(self, row: Sequence[Any]) -> list[float]:
        return [
            value if type(value) is float and -LARGEST_FLOAT32 < value < LARGEST_FLOAT32 else column.read_one(value)
            for column, value in zip(self.number_columns, row, strict=False)
        ]
