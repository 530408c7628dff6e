"""Writing a table so that the file is either whole or not there."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import polars as pl

from motet._errors import RequestError, RunError
from motet.data._checks import first_line

WRITERS: dict[str, Callable[[pl.DataFrame, Path], object]] = {
    ".parquet": lambda frame, path: frame.write_parquet(path),
    ".csv": lambda frame, path: frame.write_csv(path),
    ".tsv": lambda frame, path: frame.write_csv(path, separator="\t"),
    ".arrow": lambda frame, path: frame.write_ipc(path),
    ".feather": lambda frame, path: frame.write_ipc(path),
    ".ipc": lambda frame, path: frame.write_ipc(path),
    ".ndjson": lambda frame, path: frame.write_ndjson(path),
    ".jsonl": lambda frame, path: frame.write_ndjson(path),
}


def write_table(frame: pl.DataFrame, path: str | Path) -> None:
    """Writes a table in the format that the path's ending names; a failed write leaves an older file as it was.

    Args:
        frame: the table.
        path: ends in .parquet, .csv, .tsv, .arrow, .feather, .ipc, .ndjson or .jsonl; its folder exists.

    Raises:
        RequestError: unknown ending, no such folder, a folder that may not be written, or a table that the format
            cannot hold.
        RunError: the disk is full or fails.
    """
    path = Path(path)
    writer = WRITERS.get(path.suffix.lower())
    if writer is None:
        message = f"'{path}' has the ending '{path.suffix}'; motet writes {', '.join(WRITERS)}. Use one of them."
        raise RequestError(message)
    _check_folder(path)
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        writer(frame, part)
        part.replace(path)
    except PermissionError as error:
        message = f"'{path}' cannot be written: permission denied. Choose another place or change its permissions."
        raise RequestError(message) from error
    except OSError as error:
        raise _failed(path, error) from error
    except pl.exceptions.PolarsError as error:
        if "os error" in str(error):  # polars wraps some errors of the system in its own
            raise _failed(path, error) from error
        message = f"'{path}' cannot hold this table: {first_line(error)}. Write .parquet, which holds any."
        raise RequestError(message) from error
    finally:
        part.unlink(missing_ok=True)


def _failed(path: Path, error: Exception) -> RunError:
    full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
    advice = "The disk is full; free some space or choose another place." if full else "Check the disk."
    return RunError(f"'{path}' was not written: {first_line(error)}. {advice}")


def _check_folder(path: Path) -> None:
    if not path.parent.is_dir():
        message = f"'{path}' cannot be written: there is no folder '{path.parent}'. Make the folder first."
        raise RequestError(message)
    if path.is_dir():
        message = f"'{path}' is a folder; expected a file name to write to. Name a file in it."
        raise RequestError(message)
    if not os.access(path.parent, os.W_OK):
        message = f"The folder '{path.parent}' may not be written. Choose another place or change its permissions."
        raise RequestError(message)
