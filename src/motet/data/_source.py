"""Reading a table, from a file or from what is already in memory, into one polars frame."""

from collections.abc import Mapping, Sequence
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from motet._errors import RequestError, RequestTypeError, suggest
from motet.data._checks import check_columns, first_line, refuse_duplicates, refuse_mixed
from motet.data._csv import is_csv, read_csv

if TYPE_CHECKING:
    import pandas as pd

READABLE = ".parquet, .csv, .tsv, .csv.gz, .arrow, .feather, .ipc, .ndjson, .jsonl"
ARROW_ENDINGS = (".arrow", ".feather", ".ipc")
JSON_ENDINGS = (".ndjson", ".jsonl")


def read_table(source: Any, *, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """Reads a table into one polars frame, or says what is wrong with it.

    In CSV and TSV files these words are empty values: NA, N/A, null, NaN, nan, None, ? and nothing at all; dates are
    recognised; a column with any other text in it is text.

    Args:
        source: a path (.parquet, .csv, .tsv, .csv.gz, .arrow, .feather, .ipc, .ndjson, .jsonl), a folder or glob of
            parquet files, a polars frame or lazy frame, a pandas frame, an Arrow table or record batch, a dict of
            columns, or a list of dicts.
        columns: the columns to read; all when None.

    Raises:
        RequestError: missing or damaged file, unknown ending, empty table, duplicate or missing columns, or a column
            that mixes types.
        RequestTypeError: a source of another type.
    """
    try:
        frame = _read(source, columns)
    except pl.exceptions.PolarsError as error:
        message = f"{_called(source)} cannot be read as a table: {first_line(error)}. Check that it is whole."
        raise RequestError(message) from error
    check_columns(frame.columns, columns)
    frame = frame if columns is None else frame.select(list(dict.fromkeys(columns)))
    if frame.width == 0 or frame.height == 0:
        found = "no columns" if frame.width == 0 else f"{frame.width} columns and no rows"
        message = f"{_called(source)} has {found}. A table needs both; check how it was made."
        raise RequestError(message)
    return frame


def _read(source: Any, columns: Sequence[str] | None) -> pl.DataFrame:
    if isinstance(source, pl.DataFrame):
        return source
    if isinstance(source, pl.LazyFrame):
        return _collect(source, columns)
    if isinstance(source, str | Path):
        return _read_path(source, columns)
    if isinstance(source, Mapping):
        return _from_columns(source)
    if isinstance(source, list) and all(isinstance(row, Mapping) for row in source):
        names = list(dict.fromkeys(str(name) for row in source for name in row))
        return _from_columns({name: [row.get(name) for row in source] for name in names})
    if type(source).__module__.split(".")[0] == "pandas" and hasattr(source, "columns"):
        return _from_pandas(source)
    if hasattr(source, "__arrow_c_stream__") or hasattr(source, "__arrow_c_array__"):
        return _from_arrow(source)
    message = (
        f"A table came as {type(source).__name__}; expected a path, a polars, pandas or Arrow table, a dict of "
        "columns or a list of dicts. Convert it to one of these."
    )
    raise RequestTypeError(message)


def _collect(lazy: pl.LazyFrame, columns: Sequence[str] | None) -> pl.DataFrame:
    if columns is None:
        return lazy.collect()
    check_columns(lazy.collect_schema().names(), columns)
    return lazy.select(list(dict.fromkeys(columns))).collect()


def _read_path(source: str | Path, columns: Sequence[str] | None) -> pl.DataFrame:
    path = Path(source)
    files = [path]
    if not path.exists():
        files = [Path(found) for found in sorted(glob(str(source)))]  # noqa: PTH207 (the pattern may be absolute)
        if not files:
            _refuse_missing(path)
    elif path.is_dir():
        files = sorted(path.glob("*.parquet"))
        if not files:
            message = f"'{path}' is a folder without .parquet files. Name a file, or a folder of .parquet files."
            raise RequestError(message)
    return _read_files(files, columns)


def _read_files(files: Sequence[Path], columns: Sequence[str] | None) -> pl.DataFrame:
    name = files[0].name.lower()
    if all(file.name.lower().endswith(".parquet") for file in files):
        return _guarded(lambda: _collect(pl.scan_parquet(list(files), hive_partitioning=False), columns), files[0])
    if len(files) > 1:
        message = f"{len(files)} files match, '{files[0]}' among them; only .parquet files are read together."
        raise RequestError(message)
    if is_csv(files[0]):
        return read_csv(files[0], columns)
    if name.endswith(ARROW_ENDINGS):
        return _guarded(lambda: pl.read_ipc(files[0]), files[0])
    if name.endswith(JSON_ENDINGS):
        return _guarded(lambda: pl.read_ndjson(files[0], infer_schema_length=None), files[0])
    message = (
        f"'{files[0]}' has the ending '{files[0].suffix}'; motet reads {READABLE}. Convert the file to one of them."
    )
    raise RequestError(message)


def _guarded(read: Any, path: Path) -> pl.DataFrame:
    """Runs a reader of polars, whose panics on damaged files are not `Exception`s."""
    try:
        return read()
    except RequestError:
        raise
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:
        message = (
            f"'{path}' cannot be read as {path.suffix.lstrip('.')}: {first_line(error)}. "
            "The file is damaged, cut off or of another kind; make it again."
        )
        raise RequestError(message) from error


def _refuse_missing(path: Path) -> None:
    folder = path.parent
    if not folder.is_dir():
        message = f"There is no file '{path}', nor a folder '{folder}'. Check the path."
        raise RequestError(message)
    near = suggest(path.name, sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith(".")))
    message = f"There is no file '{path}'.{near} Check the path."
    raise RequestError(message)


def _from_columns(source: Mapping[Any, Any]) -> pl.DataFrame:
    for name, values in source.items():
        if isinstance(values, Sequence) and not isinstance(values, str):
            refuse_mixed(str(name), values)
    try:
        return pl.DataFrame({str(name): values for name, values in source.items()}, strict=False)
    except (TypeError, ValueError) as error:
        message = f"The dict of columns is not a table: {first_line(error)}. Each column is a list of one length."
        raise RequestError(message) from error


def _from_pandas(source: "pd.DataFrame") -> pl.DataFrame:
    names = [str(name) for name in source.columns]
    refuse_duplicates(names, "The pandas frame")
    for place, name in enumerate(names):
        column = source.iloc[:, place]
        if column.dtype == object:
            refuse_mixed(name, [None if gone else value for value, gone in zip(column, column.isna(), strict=True)])
    try:
        return pl.from_pandas(source.set_axis(names, axis=1))
    except Exception as error:  # pandas hands over through Arrow, which has errors of its own
        message = f"The pandas frame cannot be read: {first_line(error)}. Convert the column to one plain type."
        raise RequestError(message) from error


def _from_arrow(source: Any) -> pl.DataFrame:
    schema = getattr(source, "schema", None)
    refuse_duplicates(list(getattr(schema, "names", [])), "The Arrow table")
    return pl.DataFrame(source)


def _called(source: Any) -> str:
    return f"'{source}'" if isinstance(source, str | Path) else f"The table ({type(source).__name__})"
