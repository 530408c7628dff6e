"""Four parts of a table: rows to train on, to stop on, to choose on and to test on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from motet._errors import RequestError, suggest
from motet.data._strata import assign, strata
from motet.tasks import Task

PARTS = ("train", "stop", "choose", "test")
LEAST_ROWS = 40
WORDS = {
    "train": ("train", "training"),
    "stop": ("stop",),
    "choose": ("choose",),
    "test": ("test", "testing", "holdout"),
    "validation": ("validation", "valid", "val", "dev", "eval"),
}


@dataclass(frozen=True)
class Split:
    """Row numbers by part: `train` fits, `stop` ends training, `choose` calibrates and chooses, `test` proves.

    Args:
        train: (n,) int64, in increasing order; so are the others.
        stop: as above.
        choose: as above.
        test: as above.
        how: "random", "group", "time" or "given".
    """

    train: np.ndarray
    stop: np.ndarray
    choose: np.ndarray
    test: np.ndarray
    how: str


def split_rows(
    frame: pl.DataFrame,
    tasks: Sequence[Task],
    *,
    seed: int,
    how: str = "random",
    column: str | None = None,
    fractions: tuple[float, float, float, float] = (0.64, 0.10, 0.10, 0.16),
) -> Split:
    """Splits a table's rows into four parts that do not overlap; deterministic under the seed.

    - random: every part gets its share of each task's labelled rows and classes, the rarest task first.
    - group: rows with the same value of `column` stay together.
    - time: rows in the order of `column` are cut into train, stop, choose, test; equal values stay together, and
      the seed has no say.
    - given: `column` says train, validation or test (or stop and choose); validation rows are halved into stop and
      choose, and where there are none, train gives some.

    Args:
        frame: the table.
        tasks: whose labels random parts are balanced by.
        seed: of the shuffling.
        how: see above.
        column: for every way but random; may hold no null.
        fractions: of train, stop, choose and test.

    Raises:
        RequestError: fewer than 40 rows, an unknown way, a missing column, nulls in it, unknown words in it, or a
            part that would be empty.
    """
    if frame.height < LEAST_ROWS:
        rows = "one row" if frame.height == 1 else f"{frame.height} rows"
        message = f"The table has {rows}; splitting it to train, stop, choose and test needs at least {LEAST_ROWS}. "
        message += "Give more rows."
        raise RequestError(message)
    generator = np.random.default_rng(seed)
    if how == "random":
        parts = assign(strata(frame, tasks), fractions, generator)
    elif how not in ("group", "time", "given"):
        message = f"A split '{how}' was asked for.{suggest(how, ('random', 'group', 'time', 'given'))} Choose one."
        raise RequestError(message)
    else:
        values = _column(frame, how, column)
        if how == "group":
            parts = _by_group(values, fractions, generator)
        elif how == "time":
            parts = _by_time(values, fractions)
        else:
            parts = _as_given(values, frame, tasks, fractions, generator)
    found = [np.flatnonzero(parts == number).astype(np.int64) for number in range(len(PARTS))]
    _check_filled(found, how, column)
    return Split(*found, how=how)


def _column(frame: pl.DataFrame, how: str, column: str | None) -> pl.Series:
    if column is None:
        message = f"A split by '{how}' needs to know its column, and none was named. Name the column."
        raise RequestError(message)
    if column not in frame.columns:
        message = f"The table has no column '{column}' to split by.{suggest(column, frame.columns)} Check the name."
        raise RequestError(message)
    values = frame.get_column(column)
    num_empty = values.null_count() + (int(values.is_nan().sum()) if values.dtype.is_float() else 0)
    if num_empty:
        message = f"Column '{column}' splits the rows by '{how}', but {num_empty} of {len(values)} rows have no value "
        message += "in it. Fill or drop these rows, or split at random."
        raise RequestError(message)
    return values


def _by_group(values: pl.Series, fractions: Sequence[float], generator: np.random.Generator) -> np.ndarray:
    """Groups in random order, the largest first, each to the part that lacks most of its share."""
    groups = values.rank("dense").to_numpy().astype(np.int64) - 1
    sizes = np.bincount(groups)
    if len(sizes) < len(PARTS):
        message = f"Column '{values.name}' has {len(sizes)} groups; four parts need at least four. Split another way."
        raise RequestError(message)
    order = generator.permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    wanted = [fraction * len(values) for fraction in fractions]
    lacking = list(wanted)
    part_of = np.empty(len(sizes), dtype=np.int64)
    for group in order.tolist():
        part = max(range(len(PARTS)), key=lambda number: lacking[number] / wanted[number])
        part_of[group] = part
        lacking[part] -= int(sizes[group])
    return part_of[groups]


def _by_time(values: pl.Series, fractions: Sequence[float]) -> np.ndarray:
    if not (values.dtype.is_temporal() or values.dtype.is_numeric()):
        message = f"Column '{values.name}' holds {values.dtype}; a split by time needs dates or numbers. "
        message += "Convert it to a date first, so that its order is the order of time."
        raise RequestError(message)
    moments = values.rank("min").to_numpy().astype(np.int64) - 1  # how many rows are earlier
    bounds = np.cumsum(fractions)[:3] * len(values)
    return np.searchsorted(bounds, moments, side="right")


def _as_given(
    values: pl.Series,
    frame: pl.DataFrame,
    tasks: Sequence[Task],
    fractions: Sequence[float],
    generator: np.random.Generator,
) -> np.ndarray:
    parts = _parts_of_words(values)
    keys = strata(frame, tasks)
    validation = np.flatnonzero(parts == len(PARTS))
    lacking = [number for number in (1, 2) if not (parts == number).any()]
    if len(validation):
        numbers = lacking or [1, 2]
        shares = [1.0 / len(numbers)] * len(numbers)
        parts[validation] = np.array(numbers)[assign(keys[validation], shares, generator)]
    elif lacking:
        train = np.flatnonzero(parts == 0)
        numbers = [0, *lacking]
        shares = [fractions[number] for number in numbers]
        parts[train] = np.array(numbers)[assign(keys[train], [share / sum(shares) for share in shares], generator)]
    return parts


def _parts_of_words(values: pl.Series) -> np.ndarray:
    """(N,) part numbers, 4 for validation."""
    numbers = {word: number for number, words in enumerate(WORDS.values()) for word in words}
    words = values.cast(pl.String).str.strip_chars().str.to_lowercase()
    unknown = sorted(set(words.unique().to_list()) - set(numbers))
    if unknown:
        listed = ", ".join(f"'{word}'" for word in unknown[:5])
        message = (
            f"Column '{values.name}' gives the split, but holds {listed}. Expected train, validation and test, or "
        )
        message += "train, stop, choose and test. Rename the values."
        raise RequestError(message)
    return words.replace_strict(numbers, return_dtype=pl.Int64).to_numpy().copy()


def _check_filled(found: Sequence[np.ndarray], how: str, column: str | None) -> None:
    empty = [part for part, rows in zip(PARTS, found, strict=True) if len(rows) == 0]
    if empty:
        by = f"Column '{column}'" if column else "The split"
        message = f"{by} (split '{how}') leaves no row for {' and '.join(empty)}; every part needs rows. "
        message += "Add rows for it, or split another way."
        raise RequestError(message)
