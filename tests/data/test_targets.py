"""From target columns to tasks and labels."""

import datetime as dt

import numpy as np
import polars as pl
import pytest

from motet._errors import RequestError
from motet.data import encode_targets, fit_tasks, infer_task, infer_tasks, label_arrays
from motet.tasks import Multilabel, Regression

N = 120


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([True, False] * 60, "binary"),
        ([True, False, None] * 40, "binary"),
        (["a", "b"] * 60, "binary"),
        ([3, 9] * 60, "binary"),
        ([0.0, 1.0, float("nan")] * 40, "binary"),
        (["a", "b", "c"] * 40, "multiclass"),
        (pl.Series(["a", "b", "c"] * 40, dtype=pl.Categorical), "multiclass"),
        ([1, 2, 3, 4, 5] * 24, "multiclass"),
        ([1.0, 2.0, 3.0, None] * 30, "multiclass"),
        ([-1, 0, 1] * 40, "regression"),
        (list(range(N)), "regression"),
        ([0.1, 0.2, 0.3] * 40, "regression"),
        ([["a"], ["a", "b"], []] * 40, "multilabel"),
    ],
)
def test_kinds(values, expected):
    frame = pl.DataFrame({"y": values})
    assert infer_task(frame, "y").kind == expected
    assert infer_task(frame, "y", "quantile").kind == "quantile"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([None] * N, "Target 'y' has no value in any row"),
        ([float("nan")] * N, "Target 'y' has no value in any row"),
        ([3] * N, "one value 3 in every row.*nothing to predict"),
        (["a", None] * 60, "one value 'a' in every row"),
        (
            [f"c{row}" for row in range(N)],
            "120 distinct texts, for example 'c0'.*at most 100 classes.*say 'multiclass'",
        ),
        ([*map(str, range(N - 1)), "x"], "99% of them are numbers: empty the other ones"),
        ([dt.date(2020, 1, 1 + row % 20) for row in range(N)], "holds Date; .*Convert the column"),
    ],
)
def test_refused(values, message):
    with pytest.raises(RequestError, match=message):
        infer_task(pl.DataFrame({"y": values}), "y")


def test_names_and_kinds_that_do_not_exist():
    frame = pl.DataFrame({"delay": [1, 2, 3] * 20, "late:x": [True, False, None] * 20})
    with pytest.raises(RequestError, match=r"no column 'dealy' to predict. Did you mean 'delay'"):
        infer_task(frame, "dealy")
    with pytest.raises(RequestError, match=r"asked for as 'regresion'.*Did you mean 'regression'"):
        infer_task(frame, "delay", "regresion")
    with pytest.raises(RequestError, match=r"has the kind 'regresion'.*Did you mean 'regression'"):
        infer_tasks(frame, ["delay:regresion"])
    with pytest.raises(RequestError, match="Target 'delay' is named twice"):
        infer_tasks(frame, ["delay", "delay:count"])
    with pytest.raises(RequestError, match="No target was named"):
        infer_tasks(frame, [])
    tasks = infer_tasks(frame, ["delay:count", "late:x", Regression("again", columns=("delay",))])
    assert [(task.name, task.kind) for task in tasks] == [
        ("delay", "count"), ("late:x", "binary"), ("again", "regression"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("column", "dtype", "present"),
    [
        (pl.Series([None, True, False]), np.bool_, [0, 1, 1]),
        (pl.Series([4, None, 5], dtype=pl.UInt8), np.int64, [1, 0, 1]),
        (pl.Series([4.0, float("nan"), float("inf"), None, 1.0]), np.float64, [1, 0, 0, 0, 1]),
        (pl.Series(["a", None, "b"]), np.object_, [1, 0, 1]),
        (pl.Series(["a", None, "b"], dtype=pl.Categorical), np.object_, [1, 0, 1]),
        (pl.Series(["a", None, "b"], dtype=pl.Enum(["a", "b"])), np.object_, [1, 0, 1]),
        (pl.Series([None, None], dtype=pl.Int32), np.int64, [0, 0]),
        (pl.Series([None, None]), np.float64, [0, 0]),
        (pl.Series([["a", "b"], None, []]), np.object_, [1, 0, 1]),
    ],
)
def test_label_arrays(column, dtype, present):
    values, found = label_arrays(pl.DataFrame({"y": column}), Regression("y"))
    assert values.dtype == dtype
    assert values.shape == (len(column),)
    assert found.tolist() == [bool(flag) for flag in present]
    if dtype == np.float64:
        assert np.isfinite(values).all()
    for value, kept, original in zip(values.tolist(), found, column.to_list(), strict=True):
        assert not kept or value == original
        assert value is not None


def test_several_label_columns():
    frame = pl.DataFrame({"a": [1, None, 0], "b": [True, None, None]})
    values, present = label_arrays(frame, Multilabel("tags", columns=("a", "b")))
    assert np.array_equal(values, [[1, 1], [np.nan, np.nan], [0, np.nan]], equal_nan=True)
    assert present.tolist() == [True, False, True]
    with pytest.raises(RequestError, match="reads the column 'c', which the table does not have"):
        label_arrays(frame, Multilabel("tags", columns=("a", "c")))
    with pytest.raises(RequestError, match="several label columns, and 'b' holds String"):
        label_arrays(frame.with_columns(b=pl.lit("x")), Multilabel("tags", columns=("a", "b")))


def test_fit_and_encode_all_kinds():
    generator = np.random.default_rng(0)
    frame = pl.DataFrame(
        {
            "price": generator.normal(size=N),
            "late": [True, False, None] * 40,
            "grade": ["a", "b", "c", None] * 30,
            "count": generator.poisson(3, N),
            "tags": [["x"], ["x", "y"], None] * 40,
        }
    )
    tasks = infer_tasks(frame, ["price", "late", "grade", "count:count", "tags"])
    fitted = fit_tasks(frame, tasks, np.arange(60))
    assert all(task.is_fitted for task in fitted)
    targets, present = encode_targets(frame, fitted)
    assert {name: array.shape for name, array in targets.items()} == {
        "price": (N,), "late": (N,), "grade": (N,), "count": (N,), "tags": (N, 2),
    }  # fmt: skip
    assert present["late"].tolist() == [True, True, False] * 40
    assert present["grade"].sum() == 90
    assert present["tags"].sum() == 80
    assert all(np.isfinite(array).all() for array in targets.values())
    assert set(encode_targets(frame.drop("late"), fitted)[0]) == {"price", "grade", "count", "tags"}
