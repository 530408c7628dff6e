"""Scores by slice: the right rows in each, the worst one named, and no more claimed than is proven."""

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from known_model import KnownModel
from small_tables import quick_fit, small_table

from motet import RequestError
from motet.tabular._slices import MISSING, MOST_LEVELS, OTHERS, slice_scores, slices
from motet.tasks import Regression


def two_towns(num_rows: int = 1200, error: float = 3.0, seed: int = 0) -> tuple[KnownModel, pl.DataFrame]:
    """A model that says 0 where the truth has deviation 1, and `error` in Ulm; a fifth of the labels are missing."""
    draw = np.random.default_rng(seed)
    town = np.array(["Bonn", "Köln", "Ulm"])[draw.integers(0, 3, num_rows)]
    truth = draw.normal(size=num_rows) * np.where(town == "Ulm", error, 1.0)
    frame = pl.DataFrame({"town": town, "x": draw.normal(size=num_rows), "y": truth})
    frame = frame.with_columns(pl.when(pl.Series(draw.random(num_rows) > 0.2)).then("y").alias("y"))
    model = KnownModel.of(frame, [Regression("y")], {"y": lambda rows: np.zeros(rows.height)})
    return model, frame


def scored(model: KnownModel, frame: pl.DataFrame, by: str, seed: int = 0) -> pl.DataFrame:
    return slice_scores(model, model.labelled(frame), by, bins=4, resamples=300, seed=seed)


def test_each_slice_has_its_own_rows_and_the_worst_is_named():
    model, frame = two_towns()
    found = scored(model, frame, "town")
    assert found["slice"].to_list() == ["Bonn", "Köln", "Ulm"]
    for row in found.iter_rows(named=True):
        labels = frame.filter(town=row["slice"])["y"].drop_nulls().to_numpy()
        others = frame.filter(pl.col("town") != row["slice"])["y"].drop_nulls().to_numpy()
        assert row["rows"] == len(labels)
        assert row["score"] == pytest.approx(np.sqrt((labels**2).mean()), rel=1e-5)
        assert row["low"] < row["score"] < row["high"]
        assert row["worse_by"] == pytest.approx(row["score"] - np.sqrt((others**2).mean()), rel=1e-5)
    assert found["worst"].to_list() == [False, False, True]
    assert found["proven"].to_list() == [False, False, True]


def test_among_slices_that_are_alike_the_worst_is_seldom_proven():
    proven = sum(bool(scored(*two_towns(300, 1.0, seed), "town")["proven"].any()) for seed in range(100))
    assert proven <= 12  # 5 expected


def test_a_slice_of_few_rows_is_shown_and_never_the_worst():
    model, frame = two_towns(600, 9.0)
    ulm = frame["town"] == "Ulm"
    few = frame.filter(~ulm | (ulm & (ulm.cum_sum() <= 10)))
    row = scored(model, few, "town").filter(slice="Ulm").row(0, named=True)
    assert (row["worst"], row["proven"], row["low"]) == (False, False, None)
    assert row["worse_by"] > 1.0


def test_a_level_without_labels_has_no_score():
    model, frame = two_towns(300)
    gone = frame.with_columns(pl.when(pl.col("town") != "Köln").then("y").alias("y"))
    row = scored(model, gone, "town").filter(slice="Köln").row(0, named=True)
    assert (row["rows"], row["score"], row["worse_by"]) == (0, None, None)


def test_numbers_are_cut_into_bins_of_like_size():
    values = np.random.default_rng(0).normal(size=1000)
    codes, names = slices(pl.DataFrame({"x": values}), "x", 4)
    assert np.bincount(codes).tolist() == [250] * 4
    assert names[0].startswith("[")
    assert names[-1].endswith("]")
    assert np.array_equal(codes, np.searchsorted(np.sort(values)[[250, 500, 750]], values, side="right"))


def test_missing_and_infinite_numbers_dates_and_repeated_values():
    holes = pl.DataFrame({"x": [None, float("nan"), *range(40)]}, strict=False)
    codes, names = slices(holes, "x", 4)
    assert names[-1] == MISSING
    assert codes[:2].tolist() == [4, 4]
    days = [date(2020, 1, 1) + timedelta(days=number) for number in range(40)]
    codes, names = slices(pl.DataFrame({"x": days}), "x", 2)
    assert names == ["[2020-01-01, 2020-01-21)", "[2020-01-21, 2020-02-09]"]
    assert np.bincount(codes).tolist() == [20, 20]
    often = pl.DataFrame({"x": [0.0] * 900 + list(range(1, 101))}, strict=False)
    codes, names = slices(often, "x", 5)
    assert len(names) == len(np.unique(codes))
    assert len(set(codes[:900])) == 1


def test_levels_are_the_most_frequent_and_the_others_together():
    texts = [f"level {number:02}" for number in range(30) for _ in range(31 - number)] + [None]
    codes, names = slices(pl.DataFrame({"x": texts}), "x", 4)
    assert names[:2] == ["level 00", "level 01"]
    assert names[MOST_LEVELS:] == [OTHERS, MISSING]
    assert codes[-1] == MOST_LEVELS + 1
    assert codes[-2] == MOST_LEVELS
    assert slices(pl.DataFrame({"x": [True, False]}), "x", 4)[1] == ["false", "true"]


def test_a_fitted_model_by_a_column_that_is_no_feature():
    model = quick_fit(small_table(600), "amount:regression", "bought:binary")
    fresh = small_table(300, seed=1).with_columns(week=pl.Series(np.arange(300) // 150))
    found = model.slices(fresh, by="week", tasks=["bought"])
    assert found["slice"].to_list() == ["0", "1"]
    assert found["rows"].to_list() == [150, 150]
    for week in (0, 1):
        alone = model.evaluate(fresh.filter(week=week), tasks=["bought"])["bought"]
        assert found["score"][week] == pytest.approx(alone["metrics"]["roc_auc"], abs=1e-5)
    with pytest.raises(RequestError, match=r"no column 'wek' to slice by\. Did you mean 'week'"):
        model.slices(fresh, by="wek")
    with pytest.raises(RequestError, match="bins is 1; a number between 2"):
        model.slices(fresh, by="n0", bins=1)
    nested = fresh.with_columns(tags=pl.Series([[1]] * 300))
    with pytest.raises(RequestError, match=r"holds List.*Slice by another column"):
        model.slices(nested, by="tags")
