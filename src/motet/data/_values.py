"""One value of a column, by the rules that tables and single rows share."""

import datetime as dt
import math
from decimal import Decimal
from typing import Any

import numpy as np

from motet.data._csv import NULL_WORDS

NUMBERS = (int, float, Decimal, np.integer, np.floating)
DAY = 86_400_000_000  # microseconds


class WrongTypeError(Exception):
    """A value of another type than the column had at training; the caller names the column."""


def read_number(value: Any) -> float:
    """A number, true or false as 1 or 0, or text that holds a number; NaN where missing or infinite.

    Raises:
        WrongTypeError: anything else.
    """
    if value is None:
        return math.nan
    if isinstance(value, str):
        text = value.strip()
        if text in NULL_WORDS:
            return math.nan
        try:
            value = float(text) if "_" not in text else None
        except ValueError:
            value = None
    elif not isinstance(value, (*NUMBERS, bool, np.bool_)):
        value = None
    if value is None:
        raise WrongTypeError
    number = float(value)
    return number if math.isfinite(number) else math.nan


def read_level(value: Any, kind: str) -> str | None:
    """The name of a category's level; None where missing.

    Whole numbers and floats without a fraction have one name, so that a gap that turns integers to floats changes
    nothing.

    Args:
        value: from the table.
        kind: what the column held at training: "text", "number" or "boolean".

    Raises:
        WrongTypeError: text that is no number for numbers, anything but text for text, and so on.
    """
    if value is None or (isinstance(value, float | np.floating) and not math.isfinite(value)):
        return None
    if isinstance(value, bool | np.bool_):
        if kind == "text":
            raise WrongTypeError
        return _number_name(value) if kind == "number" else str(bool(value)).lower()
    if isinstance(value, str):
        return _text_level(value, kind)
    if kind == "text" or not isinstance(value, NUMBERS):
        raise WrongTypeError
    if kind == "boolean":
        if value not in (0, 1):
            raise WrongTypeError
        return "true" if value == 1 else "false"
    return _number_name(value)


def _text_level(value: str, kind: str) -> str | None:
    if kind == "text":
        return value
    if kind == "boolean" and value.lower() in ("true", "false"):
        return value.lower()
    number = read_number(value)
    return None if math.isnan(number) else read_level(number, kind)


def _number_name(value: Any) -> str:
    if isinstance(value, int | np.integer):
        return str(int(value))
    return str(int(value)) if value == int(value) else repr(float(value))


def read_date(value: Any) -> np.datetime64 | None:
    """A date, time, duration or ISO text as microseconds since 1970 (times and durations: since zero).

    Times of day with a zone count as they stand on the clock.

    Raises:
        WrongTypeError: anything else.
    """
    if value is None:
        return None
    if isinstance(value, str):
        if value.strip() in NULL_WORDS:
            return None
        value = _from_text(value.strip())
    if isinstance(value, np.datetime64):
        return None if np.isnat(value) else value.astype("M8[us]")
    if isinstance(value, dt.datetime):
        return np.datetime64(value.replace(tzinfo=None), "us")
    if isinstance(value, dt.date):
        return np.datetime64(value, "us")
    if isinstance(value, dt.time):
        seconds = value.hour * 3600 + value.minute * 60 + value.second
        return np.datetime64(seconds * 1_000_000 + value.microsecond, "us")
    if isinstance(value, dt.timedelta):
        return np.datetime64(value // dt.timedelta(microseconds=1), "us")
    raise WrongTypeError


def _from_text(text: str) -> dt.datetime | dt.time:
    for read in (dt.datetime.fromisoformat, dt.time.fromisoformat):
        try:
            return read(text)
        except ValueError:
            continue
    raise WrongTypeError


def date_parts(moments: np.ndarray) -> dict[str, np.ndarray]:
    """The numbers that a date is expanded to, NaN where missing.

    Args:
        moments: (N,) datetime64[us], NaT where missing.

    Returns:
        (N,) float64 each: `days` since 1970 (with the time of day as fraction), `month` 1…12, `day` 1…31,
        `weekday` 0 (Monday)…6, `yearday` 1…366, `hour` 0…24 with the minutes as fraction.
    """
    missing = np.isnat(moments)
    known = np.where(missing, np.datetime64(0, "us"), moments)
    days = known.astype("M8[D]")
    months = known.astype("M8[M]")
    clock = (known - days).astype(np.int64)
    parts = {
        "days": known.astype(np.int64) / DAY,
        "month": months.astype(np.int64) % 12 + 1,
        "day": (days - months).astype(np.int64) + 1,
        "weekday": (days.astype(np.int64) + 3) % 7,
        "yearday": (days - known.astype("M8[Y]")).astype(np.int64) + 1,
        "hour": clock / 3_600_000_000,
    }
    return {name: np.where(missing, np.nan, values) for name, values in parts.items()}
