"""What columns are for."""

import datetime as dt
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from motet._errors import RequestError
from motet.data import Schema, infer_schema, read_table
from motet.tasks import Binary, Regression

SHARED = Path(__file__).parents[3] / "shared" / "data"
N = 200
NUMBERS = np.random.default_rng(0)


def role(values, name="x"):
    schema = infer_schema(pl.DataFrame({name: values}), [])
    (column,) = schema.columns
    assert column.used == (column.role in ("number", "category", "date"))
    assert column.reason
    return column.role


def words(count, distinct):
    return [" ".join(f"w{(row % distinct) * 7 + place}" for place in range(count)) for row in range(N)]


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("flag", [True, False] * 100, "category"),
        ("size", [0.5 * row for row in range(N)], "number"),
        ("stars", [row % 5 for row in range(N)], "number"),
        ("shuffled", NUMBERS.integers(0, 10_000, N), "number"),
        ("row", list(range(10, N + 10)), "identifier"),
        ("backwards", list(range(N, 0, -1)), "identifier"),
        ("permuted", NUMBERS.permutation(N), "identifier"),
        ("PassengerId", NUMBERS.permutation(N) * 7, "identifier"),
        ("distance", NUMBERS.permutation(N) * 7, "number"),
        ("shop id", [row % 9 * 31 for row in range(N)], "category"),
        ("zipCode", [row % 90 + 10_000 for row in range(N)], "category"),
        ("paid", [row % 90 for row in range(N)], "number"),
        ("carrier", ["AA", "UA"] * 100, "category"),
        ("name", [f"n{row}" for row in range(N)], "identifier"),
        ("few", [f"n{row}" for row in range(30)], "category"),
        ("essay", words(9, 150), "text"),
        ("long_levels", words(9, 12), "category"),
        ("text_numbers", [f"{row / 3:.2f}" for row in range(N)], "number"),
        ("text_codes", [f"{row:05d}" for row in range(N)], "identifier"),
        ("one", [7] * N, "constant"),
        ("empty", [None] * N, "constant"),
        ("nan", [float("nan")] * N, "constant"),
        ("one_or_gap", [7.0, None] * 100, "number"),
        ("day", [dt.date(2020, 1, 1) + dt.timedelta(row) for row in range(N)], "date"),
        ("moment", [dt.datetime(2020, 1, 1, row % 24, row % 60) for row in range(N)], "date"),
        ("clock", [dt.time(row % 24) for row in range(N)], "date"),
        ("lasted", [dt.timedelta(row) for row in range(N)], "date"),
        ("list", [[1, 2], [3]] * 100, "ignored"),
        ("struct", [{"a": row} for row in range(N)], "ignored"),
        ("bytes", [b"a", b"b"] * 100, "ignored"),
    ],
)
def test_rules(name, values, expected):
    assert role(values, name) == expected


def test_reasons_carry_figures():
    frame = pl.DataFrame(
        {
            "level": pl.Series(["a", "b"] * 100, dtype=pl.Categorical),
            "size": [1.0, float("inf"), -float("inf"), 2.0] * 50,
            "dirty": [*(str(row) for row in range(N - 1)), "unknown"],
        }
    )
    reasons = {column.name: column.reason for column in infer_schema(frame, []).columns}
    assert reasons["level"] == "2 distinct texts"
    assert reasons["size"] == "2 distinct numbers; 100 infinite ones count as missing"
    assert "% are numbers, 'unknown' is not" in reasons["dirty"]


def test_only_training_rows_are_looked_at():
    frame = pl.DataFrame({"x": [1] * 60 + [2] * 40})
    assert infer_schema(frame, [], rows=np.arange(60)).columns[0].role == "constant"
    assert infer_schema(frame, []).columns[0].role == "number"


def test_targets_splits_and_overrides():
    frame = pl.DataFrame(
        {
            "y": [0.5 * row for row in range(N)],
            "part": ["train", "test"] * 100,
            "who": [row % 9 for row in range(N)],
            "when": [dt.date(2020, 1, 1) + dt.timedelta(row) for row in range(N)],
            "turn": [row // 2 for row in range(N)],
            "name": [f"n{row}" for row in range(N)],
        }
    )
    tasks = [Regression("y")]
    schema = infer_schema(
        frame, tasks, overrides={"name": "category"}, split_column="part", group_column="who", time_column="when"
    )
    assert [column.role for column in schema.columns] == ["target", "split", "split", "date", "number", "category"]
    assert schema.features() == ("when", "turn", "name")
    assert schema.features("number") == ("turn",)
    assert infer_schema(frame, tasks, time_column="turn").columns[4].role == "split"
    assert Schema.from_dict(json.loads(json.dumps(schema.to_dict()))) == schema
    assert len(schema.lines()) == 6
    assert "label of task 'y'" in schema.lines()[0]


def test_wrong_overrides():
    frame = pl.DataFrame({"size": [1, 2], "when": [dt.date(2020, 1, 1)] * 2, "y": [1, 2]})
    tasks = [Regression("y")]
    with pytest.raises(RequestError, match=r"no column 'sise'. Did you mean 'size'"):
        infer_schema(frame, tasks, overrides={"sise": "number"})
    with pytest.raises(RequestError, match=r"role 'numbr'.*Did you mean 'number'.*Choose one of"):
        infer_schema(frame, tasks, overrides={"size": "numbr"})
    with pytest.raises(RequestError, match=r"'when' was given the role 'number', but it holds Date\. Convert"):
        infer_schema(frame, tasks, overrides={"when": "number"})
    with pytest.raises(RequestError, match="it is the label of task 'y'"):
        infer_schema(frame, tasks, overrides={"y": "number"})


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")
def test_real_tables():
    flights = read_table(SHARED / "flights_six_targets.parquet")
    schema = infer_schema(flights, [Binary("cancelled")], split_column="split")
    assert schema.features("category") == (
        "carrier", "origin", "dest", "engine", "manufacturer", "late15", "bucket",
    )  # fmt: skip
    assert "flight" in schema.features("number")
    census = infer_schema(read_table(SHARED / "census_kdd_train.parquet"), [Binary("income_50k")])
    assert {"det_ind_code", "det_occ_code", "race"} <= set(census.features("category"))
    assert {"age", "weeks_worked", "capital_gains"} <= set(census.features("number"))
    bikes = infer_schema(read_table(SHARED / "bikeshare.parquet"), [Regression("casual")])
    assert {"day", "hr", "temp"} <= set(bikes.features("number"))
    assert bikes.features("category") == ("mnth", "weathersit")
