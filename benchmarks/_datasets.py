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
    task_column: str = ""  # says which task a row belongs to, where each row belongs to one

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


def birds(data: Path) -> Dataset:
    """Which of nineteen birds are heard in ten seconds of sound; the rarest four times in 322 rows."""
    frame = _official(data, "birds")
    words = [name for name, dtype in frame.schema.items() if dtype == pl.Binary]
    frame = frame.with_columns(pl.col(words).cast(pl.String)).rename(lambda name: name.replace("\\", ""))
    labels = frame.columns[-20:-1]
    frame = frame.with_columns(pl.col(labels) == "1")
    return Dataset("birds", frame, tuple((name, "binary") for name in labels))


def clothing(data: Path) -> Dataset:
    """Reviews of clothes without their text: stars, whether it is recommended, and where in the shop it hangs."""
    # The name of the class says which department and division it belongs to.
    frame = pl.read_parquet(data / "clothing_reviews.parquet").drop("Title", "Review Text", "Class Name")
    frame = frame.with_columns(
        (pl.col("Recommended IND") == 1).alias("Recommended IND"), split=_random_split(frame.height)
    )
    kinds = {"Rating": "regression", "Recommended IND": "binary"}
    kinds |= {"Department Name": "multiclass", "Division Name": "multiclass"}
    return Dataset("clothing", frame, tuple(kinds.items()))


def tasks_abalone(data: Path) -> Dataset:
    """Rings of abalones; the sex is the task."""
    return _with_tasks(data, "abalone", "Task", "regression")


def tasks_avila(data: Path) -> Dataset:
    """Which of twelve scribes wrote lines of the Avila Bible; 48 tasks."""
    return _with_tasks(data, "avila", "Task", "multiclass")


def tasks_bank(data: Path) -> Dataset:
    """Who takes a deposit after a call; the job is the task."""
    return _with_tasks(data, "bank", "remainder__Task", "binary")


def tasks_computer(data: Path) -> Dataset:
    """How likely 190 people say that they buy each of twenty computers."""
    return _with_tasks(data, "computer", "task", "regression")


def synth_4(data: Path) -> Dataset:
    """MultiTab-Bench, four tasks."""
    return _synthetic(data, 4)


def synth_16(data: Path) -> Dataset:
    """MultiTab-Bench, sixteen tasks."""
    return _synthetic(data, 16)


def synth_64(data: Path) -> Dataset:
    """MultiTab-Bench, sixty-four tasks."""
    return _synthetic(data, 64)


# Seconds that a contender has for a fit where `--time-limit` does not say: enough for every rival to end by itself on
# most tables, and five seeds of the small ones take two hours of one core.
LIMITS: dict[Callable[[Path], Dataset], float] = {
    flights: 540, census: 540, rf1: 60, yeast: 60, bikeshare: 60, birds: 60, clothing: 45, tasks_abalone: 20,
    tasks_avila: 45, tasks_bank: 45, tasks_computer: 20, synth_4: 40, synth_16: 80, synth_64: 160,
}  # fmt: skip
DATASETS: dict[str, Callable[[Path], Dataset]] = {loader.__name__: loader for loader in LIMITS}
SMALL = [name for name in DATASETS if name not in ("flights", "census")]


def _with_tasks(data: Path, name: str, task: str, kind: str) -> Dataset:
    """A table whose rows each belong to one task; each task has its share of every split."""
    frame = pl.read_parquet(data / f"tasks_{name}.parquet").rename({task: "task"})
    frame = frame.with_columns(pl.col("task").cast(pl.String))
    if kind != "regression":
        frame = frame.with_columns(pl.col("target").cast(pl.Boolean if kind == "binary" else pl.String))
    split = np.empty(frame.height, dtype="U10")
    for number, (_, rows) in enumerate(sorted(frame.with_row_index().group_by("task"), key=lambda part: part[0])):
        split[rows["index"].to_numpy()] = _random_split(rows.height, seed=number).to_numpy()
    return Dataset(f"tasks_{name}", frame.with_columns(pl.Series(SPLIT, split)), (("target", kind),), "task")


def _synthetic(data: Path, tasks: int) -> Dataset:  # noqa: ARG001
    """Polynomials of degree 1 to 3 along correlated directions, 16 features, 3,000 rows."""
    from motet.bench.synth import SynthSettings, synthesise  # torch comes with it, and would count as a rival's memory

    settings = SynthSettings(rows=3000, tasks=tasks, degree=(1, 2, 3), correlation=0.4)
    frame, truth = synthesise(settings, seed=0)
    names = [task["name"] for task in truth.tasks]
    return Dataset(f"synth_{tasks}", frame, tuple((name, "regression") for name in names))


def _official(data: Path, name: str) -> pl.DataFrame:
    """The train and test rows of two files; 15% of the train rows, drawn once, are for validation."""
    train, test = (pl.read_parquet(data / f"{name}_{part}.parquet") for part in ("train", "test"))
    train = train.with_columns(split=_random_split(train.height, test=0.0))
    return pl.concat([train, test.with_columns(split=pl.lit("test"))])


def _random_split(rows: int, *, validation: float = 0.15, test: float = 0.15, seed: int = 0) -> pl.Series:
    """Which split each row is in: the same at every call, so that seeds change the models and not the rows."""
    order = np.random.default_rng(seed).permutation(rows)
    names = np.full(rows, "train", dtype="U10")
    names[order[: round(rows * test)]] = "test"
    names[order[rows - round(rows * validation) :]] = "validation"
    return pl.Series(SPLIT, names)
