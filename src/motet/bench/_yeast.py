"""Yeast: fourteen functional groups of genes."""

from pathlib import Path

import numpy as np
import polars as pl

from motet.bench._problem import Problem, Schedule
from motet.bench._tables import TableSource, table_problem
from motet.tasks import Binary

SCHEDULE = Schedule(epochs=10, batch_size=64, learning_rate=2e-3)
TEST_ROWS = 717


def yeast(data: Path | None, seed: int) -> Problem:
    """Fourteen yes/no labels, each a task of its own; the rows to measure on are drawn."""
    frame = TableSource("yeast_14labels", "river", "datasets/yeast.csv.gz", "river==0.26.1").read(data, pl.read_csv)
    labels = [name for name in frame.columns if name.startswith("Class")]
    frame = frame.with_columns(pl.col(labels).cast(pl.String).str.to_lowercase().is_in(["1", "1.0", "true"]))
    order = np.random.default_rng(seed).permutation(frame.height)
    train, test = frame[np.sort(order[TEST_ROWS:])], frame[np.sort(order[:TEST_ROWS])]
    return table_problem("yeast", train, test, [Binary(name) for name in labels], SCHEDULE)
