"""The fitted encoding of one column: numbers, dates, categories."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from motet._errors import RequestError
from motet.data._values import WrongTypeError, date_parts, read_date, read_level, read_number

EXACT_FLOAT32 = 2.0**24
LARGEST_FLOAT32 = float(np.finfo(np.float32).max)
PARTS = ("days", "month", "day", "weekday", "yearday", "hour")


@dataclass(frozen=True)
class NumberColumn:
    """A number as float32, less an offset where float32 alone would lose whole numbers.

    Args:
        name: the column.
        source: "number", or "text" for a text column read as numbers, where other text is missing.
        offset: subtracted in float64; the training median where a value passes 2^24, else 0.
    """

    name: str
    source: str = "number"
    offset: float = 0.0

    @classmethod
    def fit(cls, values: pl.Series) -> "NumberColumn":
        """Chooses the offset from training values."""
        column = cls(values.name, "number" if values.dtype.is_numeric() or values.dtype == pl.Boolean else "text")
        numbers = column.read(values)
        known = numbers[~np.isnan(numbers)]
        if len(known) == 0:
            message = f"Column '{values.name}' has the role 'number', but no training value is one."
            message += " Give it another role."
            raise RequestError(message)
        large = float(np.abs(known).max()) > EXACT_FLOAT32
        return cls(values.name, column.source, float(np.median(known)) if large else 0.0)

    def read(self, values: pl.Series) -> np.ndarray:
        """A column to (N,) float64, NaN where missing."""
        if values.dtype.is_numeric() or values.dtype == pl.Boolean:
            numbers = values.cast(pl.Float64).to_numpy()
            return numbers if np.isfinite(numbers).all() else np.where(np.isfinite(numbers), numbers, np.nan)
        return through_distinct(values, self.read_one, pl.Float64).fill_null(np.nan).to_numpy()

    def read_one(self, value: Any) -> float:
        """One value to a number; see `read_number`."""
        try:
            return read_number(value)
        except WrongTypeError:
            if self.source == "text" and isinstance(value, str):
                return np.nan
            raise refused(self.name, "numbers", value) from None

    def finish(self, numbers: np.ndarray) -> np.ndarray:
        """Numbers as models take them, still float64 but within float32."""
        return np.clip(numbers - self.offset, -LARGEST_FLOAT32, LARGEST_FLOAT32)


@dataclass(frozen=True)
class DateColumn:
    """A date as the numbers in `parts`, those of `PARTS` that vary in training rows."""

    name: str
    parts: tuple[str, ...]

    @classmethod
    def fit(cls, values: pl.Series) -> "DateColumn":
        """Chooses the parts that vary."""
        if values.dtype in (pl.Time, pl.Duration):
            return cls(values.name, ("days",))
        found = date_parts(cls(values.name, ()).read(values))
        return cls(
            values.name, tuple(part for part in PARTS if len(np.unique(found[part][~np.isnan(found[part])])) > 1)
        )

    def read(self, values: pl.Series) -> np.ndarray:
        """A column to (N,) datetime64[us], NaT where missing."""
        dtype = values.dtype
        if isinstance(dtype, pl.Datetime):
            values = values.dt.replace_time_zone(None).cast(pl.Datetime("us"))
        elif dtype == pl.Date:
            values = values.cast(pl.Datetime("us"))
        elif dtype == pl.Time:
            values = (values.cast(pl.Int64) // 1000).cast(pl.Datetime("us"))
        elif dtype == pl.Duration:
            values = values.cast(pl.Duration("us")).cast(pl.Int64).cast(pl.Datetime("us"))
        else:
            values = through_distinct(values, self._read_integer, pl.Int64).cast(pl.Datetime("us"))
        return values.to_numpy().astype("M8[us]")

    def read_one(self, value: Any) -> Any:
        """One value to a datetime64[us]; see `read_date`."""
        try:
            return read_date(value)
        except WrongTypeError:
            raise refused(self.name, "dates", value) from None

    def _read_integer(self, value: Any) -> int | None:
        moment = self.read_one(value)
        return None if moment is None else int(moment.astype(np.int64))

    def finish(self, moments: np.ndarray) -> list[np.ndarray]:
        """(N,) datetime64 to one (N,) float64 for each part."""
        found = date_parts(moments)
        return [found[part] for part in self.parts]


@dataclass(frozen=True)
class CategoryColumn:
    """A category as a code: 0 missing, 1 unseen or rare, 2… the levels, the most frequent first.

    Args:
        name: the column.
        source: what it held at training: "text", "number" or "boolean".
        levels: the kept levels' names.
    """

    name: str
    source: str
    levels: tuple[str, ...]

    @classmethod
    def fit(cls, values: pl.Series, *, min_count: int, max_levels: int) -> "CategoryColumn":
        """Keeps the levels that occur `min_count` times, `max_levels` at most; ties in the order of their names."""
        numeric = values.dtype.is_numeric()
        source = "boolean" if values.dtype == pl.Boolean else "number" if numeric else "text"
        counted = _plain(values).drop_nulls().value_counts(name="_count_")
        counts: dict[str, int] = {}
        for value, count in counted.rows():
            level = read_level(value, source)
            if level is not None:
                counts[level] = counts.get(level, 0) + count
        least = 1 if source == "boolean" else min_count
        ordered = sorted((level for level, count in counts.items() if count >= least), key=lambda n: (-counts[n], n))
        return cls(values.name, source, tuple(ordered[:max_levels]))

    @cached_property
    def codes(self) -> Mapping[str, int]:
        """Level to code."""
        return {level: code for code, level in enumerate(self.levels, start=2)}

    @cached_property
    def takes_numbers(self) -> bool:
        """Whether this is text whose levels include numbers, so that a table may hold it as numbers."""
        return self.source == "text" and any(_is_number(level) for level in self.levels)

    @property
    def size(self) -> int:
        """How many codes there are."""
        return len(self.levels) + 2

    def read(self, values: pl.Series) -> np.ndarray:
        """A column to (N,) int32 codes."""
        return through_distinct(values, self.read_one, pl.Int32).fill_null(0).to_numpy()

    def read_one(self, value: Any) -> int:
        """One value to its code."""
        if self.source == "text" and type(value) is str:
            return self.codes.get(value, 1)
        kind = "number" if self.takes_numbers and not isinstance(value, str) else self.source
        try:
            level = read_level(value, kind)
        except WrongTypeError:
            held = {"text": "text", "number": "numbers", "boolean": "true or false"}[self.source]
            raise refused(self.name, held, value) from None
        return 0 if level is None else self.codes.get(level, 1)


def through_distinct(values: pl.Series, read: Callable[[Any], Any], dtype: Any) -> pl.Series:
    """Reads each distinct value once, in Python; nulls stay nulls."""
    values = _plain(values)
    distinct = values.unique().drop_nulls()
    if len(distinct) == 0:
        return pl.Series(values.name, [None] * len(values), dtype=dtype)
    found = pl.Series([read(value) for value in distinct.to_list()], dtype=dtype)
    return values.replace_strict(distinct, found, default=None, return_dtype=dtype)


def refused(name: str, held: str, value: object) -> RequestError:
    """The error for a column of another type than at training."""
    kinds = {"str": "text", "bool": "true or false", "int": "numbers", "float": "numbers", "Decimal": "numbers"}
    kind = kinds.get(type(value).__name__, type(value).__name__)
    message = f"Column '{name}' held {held} when the model was trained, and holds {kind} here, for example {value!r}. "
    return RequestError(message + f"Convert the column to {held}, as in the training table.")


def positions(names: Sequence[str]) -> dict[str, int]:
    """Name to place."""
    return {name: place for place, name in enumerate(names)}


def _plain(values: pl.Series) -> pl.Series:
    return values.cast(pl.String) if values.dtype in (pl.Categorical, pl.Enum) else values


def _is_number(text: str) -> bool:
    try:
        return not np.isnan(read_number(text))
    except WrongTypeError:
        return False
