"""Splitting rows."""

import datetime as dt
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motet._errors import RequestError
from motet.data import split_rows
from motet.data._strata import assign, strata
from motet.tasks import Binary, Multiclass, Multilabel, Regression

SHARES = {"train": 0.64, "stop": 0.10, "choose": 0.10, "test": 0.16}


def parts(split):
    return {name: getattr(split, name) for name in SHARES}


def check_partition(split, num_rows):
    rows = np.concatenate(list(parts(split).values()))
    assert np.array_equal(np.sort(rows), np.arange(num_rows))
    assert all(part.dtype == np.int64 for part in parts(split).values())
    assert all((np.diff(part) > 0).all() for part in parts(split).values())


@settings(max_examples=40, deadline=None)
@given(st.integers(40, 3000), st.integers(0, 2**32), st.floats(0.02, 0.9))
def test_random_parts_have_their_shares(num_rows, seed, rate):
    generator = np.random.default_rng(seed)
    frame = pl.DataFrame({"late": generator.random(num_rows) < rate, "x": generator.normal(size=num_rows)})
    split = split_rows(frame, [Binary("late")], seed=seed)
    check_partition(split, num_rows)
    for name, rows in parts(split).items():
        assert abs(len(rows) - SHARES[name] * num_rows) <= 4
        positives = frame["late"].to_numpy()
        assert abs(positives[rows].sum() - SHARES[name] * positives.sum()) <= 4


def test_rare_labels_of_several_tasks_reach_every_part():
    generator = np.random.default_rng(0)
    num_rows = 20_000
    rare = generator.random(num_rows) < 0.01
    frame = pl.DataFrame(
        {
            "rare": pl.Series(np.where(rare, generator.random(num_rows) < 0.3, None).tolist(), dtype=pl.Boolean),
            "grade": generator.choice(["a", "b", "c"], num_rows, p=[0.88, 0.1, 0.02]),
            "price": pl.Series(generator.normal(size=num_rows)).clip(-1, None),
            "tags": [["a"] if row % 7 else None for row in range(num_rows)],
            "l1": generator.random(num_rows) < 0.3,
            "l2": generator.random(num_rows) < 0.005,
        }
    )
    tasks = [
        Regression("price"), Binary("rare"), Multiclass("grade"), Multilabel("tags"),
        Multilabel("ls", columns=("l1", "l2")),
    ]  # fmt: skip
    split = split_rows(frame, tasks, seed=1)
    check_partition(split, num_rows)
    strata = [rare, frame["rare"].fill_null(value=False).to_numpy(), (frame["grade"] == "c").to_numpy()]
    for chosen in [*strata, frame["l2"].to_numpy()]:
        for name, rows in parts(split).items():
            expected = SHARES[name] * chosen.sum()
            assert abs(chosen[rows].sum() - expected) <= max(3, 0.25 * expected)
    assert all(strata[1][rows].sum() >= 3 for rows in parts(split).values())


def test_deterministic_and_different_by_seed():
    frame = pl.DataFrame({"y": [row % 3 for row in range(500)], "g": [row % 40 for row in range(500)]})
    for how, column in (("random", None), ("group", "g")):
        one, two, other = (split_rows(frame, [Multiclass("y")], seed=s, how=how, column=column) for s in (1, 1, 2))
        assert all(np.array_equal(parts(one)[name], parts(two)[name]) for name in SHARES)
        assert not np.array_equal(one.test, other.test)
        assert one.how == how


def test_random_rows_are_not_tied_to_their_place():
    frame = pl.DataFrame({"y": [float(row) for row in range(4000)]})
    split = split_rows(frame, [Regression("y")], seed=0)
    for name, rows in parts(split).items():
        assert abs(rows.mean() - 1999.5) < 4 * 1155 / np.sqrt(SHARES[name] * 4000)
        assert 0.3 < np.mean(rows % 2) < 0.7


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(20, 200))
def test_groups_stay_together(seed, num_groups):
    generator = np.random.default_rng(seed)
    groups = generator.integers(0, num_groups, 2000)
    frame = pl.DataFrame({"g": [f"g{group}" for group in groups]})
    split = split_rows(frame, [], seed=seed, how="group", column="g")
    check_partition(split, 2000)
    held = [set(groups[rows]) for rows in parts(split).values()]
    assert sum(map(len, held)) == len(set.union(*held))
    for name, rows in parts(split).items():
        assert abs(len(rows) / 2000 - SHARES[name]) < 0.1


def test_time_cuts_in_order_and_keeps_ties():
    generator = np.random.default_rng(0)
    days = generator.integers(0, 50, 1000)
    frame = pl.DataFrame({"day": [dt.date(2020, 1, 1) + dt.timedelta(int(day)) for day in days]})
    split = split_rows(frame, [], seed=0, how="time", column="day")
    check_partition(split, 1000)
    ordered = [days[rows] for rows in (split.train, split.stop, split.choose, split.test)]
    for earlier, later in pairwise(ordered):
        assert earlier.max() < later.min()
    assert abs(len(split.test) - 160) < 45
    with pytest.raises(RequestError, match="'day' holds String; a split by time needs dates or numbers"):
        split_rows(frame.select(pl.col("day").cast(pl.String)), [], seed=0, how="time", column="day")
    with pytest.raises(RequestError, match="leaves no row for stop and choose"):
        split_rows(frame.select(day=pl.Series([0, 1] * 500)), [], seed=0, how="time", column="day")


def given_split(words, **counts):
    frame = pl.DataFrame({"part": words})
    split = split_rows(frame, [], seed=0, how="given", column="part")
    check_partition(split, len(words))
    return split


def test_given_parts():
    words = ["train", " Training", "TEST", "validation", "val"] * 20
    split = given_split(words)
    assert {words[row] for row in split.train} == {"train", " Training"}
    assert {words[row] for row in split.test} == {"TEST"}
    assert abs(len(split.stop) - 20) <= 2
    assert abs(len(split.choose) - 20) <= 2
    split = given_split(["train"] * 84 + ["test"] * 16)
    assert (split.test >= 84).all()
    assert abs(len(split.stop) - 10) <= 1
    assert abs(len(split.choose) - 10) <= 1
    split = given_split(["train", "stop", "choose", "test"] * 10)
    assert (split.choose % 4 == 2).all()
    split = given_split(["train", "stop", "dev", "test"] * 10)
    assert (split.choose % 4 == 2).all()
    assert (split.stop % 4 == 1).all()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["train", "test", "tset", "other"] * 20,
            "'part' gives the split, but holds 'other', 'tset'.*Rename the values",
        ),
        (["train", "val"] * 20, "leaves no row for test"),
        (["val", "test"] * 20, "leaves no row for train"),
        (["train", None] * 20, "20 of 40 rows have no value in it. Fill or drop"),
    ],
)
def test_given_parts_refused(words, message):
    with pytest.raises(RequestError, match=message):
        given_split(words)


def test_requests_that_cannot_be_met():
    frame = pl.DataFrame({"group": [1.0, 2.0, 3.0] * 20})
    with pytest.raises(RequestError, match=r"The table has one row; .* needs at least 40. Give more rows"):
        split_rows(frame.head(1), [], seed=0)
    with pytest.raises(RequestError, match="The table has 39 rows"):
        split_rows(frame.head(39), [], seed=0)
    with pytest.raises(RequestError, match=r"A split 'randm' was asked for. Did you mean 'random'"):
        split_rows(frame, [], seed=0, how="randm")
    with pytest.raises(RequestError, match=r"no column 'groop' to split by. Did you mean 'group'"):
        split_rows(frame, [], seed=0, how="group", column="groop")
    with pytest.raises(RequestError, match="needs to know its column"):
        split_rows(frame, [], seed=0, how="group")
    with pytest.raises(RequestError, match="has 3 groups; four parts need at least four"):
        split_rows(frame, [], seed=0, how="group", column="group")
    empty = frame.with_columns(group=pl.Series([float("nan"), 1.0, 2.0] * 20))
    with pytest.raises(RequestError, match="20 of 60 rows have no value"):
        split_rows(empty, [], seed=0, how="group", column="group")


def test_strata_put_the_rarest_task_first_and_absent_at_zero():
    frame = pl.DataFrame({"common": ["a", "b"] * 50, "rare": [True, None, False, None, None] * 20})
    keys = strata(frame, [Multiclass("common"), Binary("rare")])
    assert keys[:5, 0].tolist() == [2, 0, 1, 0, 0]
    assert keys[:4, 1].tolist() == [1, 2, 1, 2]


def test_the_first_key_is_balanced_most_tightly():
    generator = np.random.default_rng(0)
    keys = np.stack([np.arange(3000) % 3, generator.integers(0, 1000, 3000)], axis=1)
    found = assign(keys, list(SHARES.values()), generator)
    for code in range(3):
        counts = np.bincount(found[keys[:, 0] == code], minlength=4)
        assert np.abs(counts - 1000 * np.array(list(SHARES.values()))).max() <= 3
