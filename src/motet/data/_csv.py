"""Reading CSV and TSV files."""

import csv
import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, TextIO

import polars as pl

from motet._errors import RequestError
from motet.data._checks import check_columns, first_line, refuse_duplicates

NULL_WORDS = ("", "NA", "N/A", "null", "NaN", "nan", "None", "?")
CSV_ENDINGS = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
FIRST_ROWS = 10_000


def is_csv(path: Path) -> bool:
    """Whether the file's ending is one of a CSV or TSV file."""
    return path.name.lower().endswith(CSV_ENDINGS)


def read_csv(path: Path, columns: Sequence[str] | None) -> pl.DataFrame:
    """Reads a CSV or TSV file; `NULL_WORDS` become empty values.

    The types are judged from the first ten thousand rows, and from the whole file if a later row contradicts them.

    Raises:
        RequestError: duplicate or missing column names, rows of another length, or text that is not UTF-8.
    """
    header, separator = _header(path)
    refuse_duplicates(header, f"'{path}'")
    check_columns(header, columns)
    try:
        return _parse(path, separator, columns, FIRST_ROWS)
    except pl.exceptions.NoDataError:
        return pl.DataFrame(schema=header)
    except pl.exceptions.PolarsError:
        pass
    try:
        return _parse(path, separator, columns, None)
    except pl.exceptions.PolarsError as error:
        _refuse(path, error)


def _parse(path: Path, separator: str, columns: Sequence[str] | None, num_rows: int | None) -> pl.DataFrame:
    return pl.read_csv(
        path,
        columns=None if columns is None else list(dict.fromkeys(columns)),
        separator=separator,
        null_values=list(NULL_WORDS),
        infer_schema_length=num_rows,
        try_parse_dates=True,
    )


def _header(path: Path) -> tuple[list[str], str]:
    """The column names as they stand in the file (polars would rename duplicates), and the separator."""
    try:
        with _opened(path) as file:
            first = file.readline()
            separator = _separator(path, first)
            file.seek(0)
            return next(csv.reader(file, delimiter=separator), []), separator
    except (UnicodeDecodeError, OSError, EOFError, csv.Error) as error:
        _refuse(path, error)


def _opened(path: Path) -> TextIO:
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _separator(path: Path, line: str) -> str:
    if ".tsv" in path.name.lower():
        return "\t"
    return "," if "," in line else next((mark for mark in ";\t|" if mark in line), ",")


def _refuse(path: Path, error: Exception) -> NoReturn:
    line = first_line(error)
    advice = "Every row must have as many fields as the first line has names."
    if isinstance(error, UnicodeDecodeError) or "utf" in line.lower():
        advice = "The text must be UTF-8; save the file again in that encoding."
    elif isinstance(error, OSError | EOFError):
        advice = "The file is damaged or may not be read; check it."
    message = f"'{path}' cannot be read as CSV: {line}. {advice}"
    raise RequestError(message) from error
