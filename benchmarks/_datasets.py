"""The tables that are measured, each as one frame with a `split` column and its targets by kind."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

DATA = Path(__file__).parents[1].parent / "shared" / "data"
SPLIT = "split"


@dataclass(frozen=True)
class Dataset:
    """One table: features, targets and the column `split` (train, validation, test)."""

    name: str
    frame: pl.DataFrame
    targets: tuple[tuple[str, str], ...]  # (column, kind): regression, binary, multiclass or count

    @property
    def features(self) -> list[str]:
        """The columns that are neither target nor split."""
        taken = {column for column, _ in self.targets} | {SPLIT}
        return [column for column in self.frame.columns if column not in taken]

    def part(self, split: str) -> pl.DataFrame:
        """The rows of one split."""
        return self.frame.filter(pl.col(SPLIT) == split)


def flights(data: Path) -> Dataset:
    """Departures from New York in 2013: the fixed random split of the published figures."""
    frame = pl.read_parquet(data / "flights_six_targets.parquet")
    kinds = {"dep_delay": "regression", "arr_delay": "regression", "air_time": "regression"}
    kinds |= {"cancelled": "binary", "late15": "binary", "bucket": "multiclass"}
    return Dataset("flights", frame, tuple(kinds.items()))


def census(data: Path) -> Dataset:
    """Census-Income (KDD), its own train and test rows."""
    frame = _official(data, "census_kdd")
    frame = frame.with_columns(
        (pl.col("income_50k") == "50000+.").alias("income_50k"),
        (pl.col("marital_stat") == "Never married").alias("never_married"),
    )
    # The weight says how many people a row stands for; the data's own documentation says not to learn from it.
    frame = frame.drop("marital_stat", "instance_weight")
    return Dataset(
        "census", frame, (("income_50k", "binary"), ("never_married", "binary"), ("education", "multiclass"))
    )


def rf1(data: Path) -> Dataset:
    """River flow 48 hours ahead at eight sites; the test rows are a later, different period.

    Rows are hours in their order, so the validation rows are the last of the training period: rows drawn at random
    would stand between their neighbours and say nothing of a later time.
    """
    frame = _official(data, "rf1")
    train = (frame[SPLIT] != "test").sum()
    later = np.arange(frame.height) >= round(0.85 * train)
    frame = frame.with_columns(split=pl.when(pl.col(SPLIT) == "test").then(pl.lit("test")).otherwise(
        pl.when(pl.Series(later)).then(pl.lit("validation")).otherwise(pl.lit("train"))
    ))  # fmt: skip
    return Dataset("rf1", frame, tuple((name, "regression") for name in frame.columns if "_48H" in name))


def yeast(data: Path) -> Dataset:
    """Genes and their fourteen functional groups."""
    frame = pl.read_parquet(data / "yeast_14labels.parquet")
    labels = [name for name in frame.columns if name.startswith("Class")]
    frame = frame.with_columns(pl.col(labels).cast(pl.Boolean), split=_random_split(frame.height))
    return Dataset("yeast", frame, tuple((name, "binary") for name in labels))


def bikeshare(data: Path) -> Dataset:
    """Bicycles hired in an hour, by casual and by registered users."""
    # `bikers` is the sum of the two targets.
    frame = pl.read_parquet(data / "bikeshare.parquet").drop("bikers")
    frame = frame.with_columns(split=_random_split(frame.height))
    return Dataset("bikeshare", frame, (("casual", "count"), ("registered", "count")))


DATASETS: dict[str, Callable[[Path], Dataset]] = {
    loader.__name__: loader for loader in (flights, census, rf1, yeast, bikeshare)
}


def _official(data: Path, name: str) -> pl.DataFrame:
    """The train and test rows of two files; 15% of the train rows, drawn once, are for validation."""
    train, test = (pl.read_parquet(data / f"{name}_{part}.parquet") for part in ("train", "test"))
    train = train.with_columns(split=_random_split(train.height, test=0.0))
    return pl.concat([train, test.with_columns(split=pl.lit("test"))])


def _random_split(rows: int, *, validation: float = 0.15, test: float = 0.15) -> pl.Series:
    """Which split each row is in: the same at every call, so that seeds change the models and not the rows."""
    order = np.random.default_rng(0).permutation(rows)
    names = np.full(rows, "train", dtype="U10")
    names[order[: round(rows * test)]] = "test"
    names[order[rows - round(rows * validation) :]] = "validation"
    return pl.Series(SPLIT, names)
