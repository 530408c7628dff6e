"""A seeded synthetic table with targets of several kinds and missing labels, and quick fits of it."""

import numpy as np
import polars as pl

from motet import FitSettings, TabularModel

QUICK = FitSettings(max_epochs=3, threads=1, resamples=200)
TARGETS = ("amount:regression", "bought:binary", "grade:multiclass")


def small_table(num_rows: int = 1500, seed: int = 0) -> pl.DataFrame:
    """Six features, of which `n0` and `town` say much; a fifth of `amount` and a tenth of `grade` are missing."""
    draw = np.random.default_rng(seed)
    numbers = draw.normal(size=(num_rows, 4))
    town = draw.integers(0, 5, num_rows)
    signal = numbers[:, 0] + 0.6 * town - 0.4 * numbers[:, 1] ** 2
    amount = 50 + 10 * signal + 4 * draw.normal(size=num_rows)
    grade = np.digitize(signal + 0.5 * draw.normal(size=num_rows), [0.2, 1.4])
    table = pl.DataFrame({f"n{place}": numbers[:, place] for place in range(4)} | {
        "town": np.array(["a", "b", "c", "d", "e"])[town],
        "amount": amount,
        "bought": signal + draw.normal(size=num_rows) > 0.8,
        "grade": np.array(["low", "mid", "high"])[grade],
    })  # fmt: skip
    gone = {"amount": draw.random(num_rows) < 0.2, "grade": draw.random(num_rows) < 0.1}
    return table.with_columns(
        pl.when(pl.Series(missing)).then(None).otherwise(pl.col(name)).alias(name) for name, missing in gone.items()
    )


def quick_fit(table: pl.DataFrame, *targets: object, seed: int = 0, settings: FitSettings = QUICK) -> TabularModel:
    """A fit that takes about a second."""
    return TabularModel(list(targets or TARGETS), seed=seed, settings=settings).fit(table)
