"""A small table with every difficulty at once, and the `motet fit` that the tests share."""

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl

TARGETS = ("price:regression", "sold:binary", "grade:multiclass", "visits:count")


def mixed_table(num_rows: int = 400, seed: int = 0) -> pl.DataFrame:
    """Numbers with nulls and infinities, categories, a date, and targets of four kinds with missing labels."""
    draw = np.random.default_rng(seed)
    size = draw.normal(size=num_rows)
    age = draw.integers(0, 90, num_rows)
    town = draw.integers(0, 4, num_rows)
    signal = size + 0.5 * town
    number = size.copy()
    number[::17] = np.inf
    number[5::23] = -np.inf
    frame = pl.DataFrame({
        "size": number,
        "age": age,
        "town": np.array(["Bonn", "Köln", "Ulm", "Jena"])[town],
        "built": [date(2020, 1, 1) + timedelta(days=int(days)) for days in draw.integers(0, 900, num_rows)],
        "noise": draw.normal(size=num_rows),
        "price": 100 * signal + 20 * draw.normal(size=num_rows),
        "sold": np.where(signal + 0.5 * draw.normal(size=num_rows) > 0.7, "yes", "no"),
        "grade": np.array(["a", "b", "c"])[np.digitize(signal + 0.3 * draw.normal(size=num_rows), [0.0, 1.2])],
        "visits": draw.poisson(np.exp(0.5 * signal)),
    })  # fmt: skip
    missing = {name: draw.random(num_rows) < share for name, share in
               {"age": 0.1, "town": 0.05, "price": 0.3, "sold": 0.2, "grade": 0.1, "visits": 0.15}.items()}  # fmt: skip
    return frame.with_columns(
        pl.when(pl.Series(gone)).then(None).otherwise(pl.col(name)).alias(name) for name, gone in missing.items()
    )


def fit_words(table: object, out: object, *more: str, targets: tuple[str, ...] = TARGETS) -> list[str]:
    """The words of a quick `motet fit`."""
    asked = [word for target in targets for word in ("--target", target)]
    return ["fit", str(table), *asked, "--out", str(out), "--max-epochs", "1", *more]


def files(folder: Path) -> dict[str, bytes]:
    """Every file under a folder with its bytes, to compare before and after."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
