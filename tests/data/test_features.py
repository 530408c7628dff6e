"""Encoding features: codes, numbers, dates, types that change, and the speed of one row."""

import datetime as dt
import json
import time

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import motet.data._features as features_module
from motet._errors import RequestError
from motet.data import FeatureEncoder, infer_schema

N = 120
ALL = np.arange(N)


def table():
    generator = np.random.default_rng(0)
    start = dt.datetime(2019, 11, 3, 7, 30)
    return pl.DataFrame(
        {
            "size": [None if row % 10 == 3 else row / 7 for row in range(N)],
            "count": pl.Series(generator.integers(0, 40, N), dtype=pl.Int32),
            "huge": [10**12 + row % 50 for row in range(N)],
            "money": pl.Series([f"{row / 4:.2f}" for row in range(N)]).cast(pl.Decimal(10, 2)),
            "written": [f"{row / 3:.2f}" for row in range(N)],
            "carrier": (["AA"] * 60 + ["UA"] * 30 + ["DL"] * 20 + ["B6"] * 6 + ["rare"] * 3 + [None]),
            "level": pl.Series(["lo", "hi"] * 60, dtype=pl.Categorical),
            "zip": [row % 4 + 100 for row in range(N)],
            "flag": [None if row == 5 else row % 3 == 0 for row in range(N)],
            "moment": [None if row == 8 else start + dt.timedelta(hours=31 * row, minutes=row) for row in range(N)],
            "day": [dt.date(2020, 2, 27) + dt.timedelta(days=row % 60) for row in range(N)],
            "clock": [dt.time(row % 24, row % 60) for row in range(N)],
            "lasted": [dt.timedelta(hours=row) for row in range(N)],
            "unused": ["same"] * N,
        }
    )


@pytest.fixture(scope="module")
def encoder():
    frame = table()
    return FeatureEncoder.fit(frame, infer_schema(frame, []), ALL)


def same(left, right):
    assert left.numbers.dtype == right.numbers.dtype == np.float32
    assert left.categories.dtype == right.categories.dtype == np.int32
    return np.array_equal(left.numbers, right.numbers, equal_nan=True) and np.array_equal(
        left.categories, right.categories
    )


def number(encoder, features, name):
    return features.numbers[:, encoder.number_names.index(name)]


def codes(encoder, features, name):
    return features.categories[:, encoder.category_names.index(name)].tolist()


def test_category_codes_by_frequency(encoder):
    assert encoder.category_names == ("carrier", "level", "zip", "flag")
    levels = {column.name: column.levels for column in encoder.category_columns}
    assert levels["carrier"] == ("AA", "UA", "DL", "B6")
    assert levels["flag"] == ("false", "true")
    assert encoder.category_sizes == (6, 4, 6, 4)
    found = encoder.transform(table())
    assert codes(encoder, found, "carrier") == [2] * 60 + [3] * 30 + [4] * 20 + [5] * 6 + [1] * 3 + [0]
    assert codes(encoder, found, "flag")[:7] == [3, 2, 2, 3, 2, 0, 3]
    unseen = table().with_columns(carrier=pl.lit("ZZ"), zip=pl.lit(999))
    assert set(codes(encoder, encoder.transform(unseen), "carrier")) == {1}
    assert set(codes(encoder, encoder.transform(unseen), "zip")) == {1}


def test_min_count_and_max_levels():
    frame = table()
    schema = infer_schema(frame, [])
    small = FeatureEncoder.fit(frame, schema, ALL, min_count=1, max_levels=2)
    assert small.category_columns[0].levels == ("AA", "UA")
    every = FeatureEncoder.fit(frame, schema, ALL, min_count=1)
    assert every.category_columns[0].levels == ("AA", "UA", "DL", "B6", "rare")


def test_numbers_keep_what_float32_would_lose(encoder):
    found = encoder.transform(table())
    huge = number(encoder, found, "huge")
    assert np.array_equal(np.diff(np.unique(huge)), np.ones(49))
    assert number(encoder, found, "count").tolist() == table()["count"].to_list()
    assert number(encoder, found, "written")[7] == np.float32(2.33)
    assert number(encoder, found, "money")[3] == np.float32(0.75)
    size = number(encoder, found, "size")
    assert np.isnan(size[3])
    assert size[14] == 2
    outside = table().with_columns(size=pl.Series([np.inf, -np.inf, np.nan, 1e300] * 30))
    size = number(encoder, encoder.transform(outside), "size")
    assert np.isnan(size[:3]).all()
    assert size[3] == np.finfo(np.float32).max


def test_date_parts_by_the_standard_library(encoder):
    found, frame = encoder.transform(table()), table()
    for row, moment in enumerate(frame["moment"].to_list()):
        if moment is None:
            assert np.isnan(number(encoder, found, "moment.month")[row])
            continue
        expected = {
            "days": (moment - dt.datetime(1970, 1, 1)) / dt.timedelta(days=1),
            "month": moment.month,
            "day": moment.day,
            "weekday": moment.weekday(),
            "yearday": moment.timetuple().tm_yday,
            "hour": moment.hour + moment.minute / 60,
        }
        for part, value in expected.items():
            assert number(encoder, found, f"moment.{part}")[row] == np.float32(value)
    names = [name for name in encoder.number_names if "." in name]
    assert [name for name in names if not name.startswith("moment")] == [
        "day.days", "day.month", "day.day", "day.weekday", "day.yearday", "clock.days", "lasted.days",
    ]  # fmt: skip
    assert number(encoder, found, "clock.days")[6] == np.float32((6 * 60 + 6) / 1440)
    assert number(encoder, found, "lasted.days")[36] == 1.5


def test_only_training_rows_are_fitted_on():
    frame = table()
    fitted = FeatureEncoder.fit(frame, infer_schema(frame, []), np.arange(60))
    assert fitted.category_columns[0].levels == ("AA",)


def test_a_round_trip_through_json(encoder):
    back = FeatureEncoder.from_dict(json.loads(json.dumps(encoder.to_dict())))
    assert back == encoder
    assert same(back.transform(table()), encoder.transform(table()))


def test_one_row_alone_and_in_a_batch(encoder):
    frame = table()
    together = encoder.transform(frame)
    for row in range(N):
        alone = encoder.transform(frame[row])
        assert same(alone, together.take(np.array([row])))
        assert same(encoder.transform_row(frame.row(row, named=True)), alone)
    assert same(encoder.transform(frame.head(20)), together.take(np.arange(20)))
    assert len(encoder.transform(frame.head(0))) == 0
    assert same(encoder.transform(frame.reverse().with_columns(extra=1)), together.take(ALL[::-1]))


def test_allowed_changes_of_type(encoder):
    frame, plain = table(), encoder.transform(table())
    changed = frame.with_columns(
        pl.col("count").cast(pl.Float64),
        pl.col("size").cast(pl.String),
        pl.col("zip").cast(pl.Float64),
        pl.col("written").cast(pl.Float64),
        pl.col("level").cast(pl.String),
        pl.col("carrier").cast(pl.Categorical),
        pl.col("flag").cast(pl.Int8),
        pl.col("moment").dt.strftime("%Y-%m-%dT%H:%M:%S"),
        pl.col("clock").cast(pl.String),
    )
    shifted = changed.with_columns(day=frame["day"].cast(pl.Datetime("ns")).dt.replace_time_zone("Asia/Tokyo"))
    for other in (shifted, shifted.head(20)):
        assert same(encoder.transform(other), plain.take(np.arange(other.height)))
    nothing = frame.with_columns(pl.lit(None).alias(name) for name in frame.columns)
    texts = frame.with_columns(pl.lit(None, dtype=pl.String).alias(name) for name in frame.columns)
    for other in (nothing, texts, nothing.head(3), texts.head(3)):
        found = encoder.transform(other)
        assert np.isnan(found.numbers).all()
        assert (found.categories == 0).all()


def test_text_that_was_partly_numbers_may_come_as_numbers():
    frame = pl.DataFrame({"grade": ["1", "2", "A"] * 40, "size": list(range(0, 360, 3))})
    encoder = FeatureEncoder.fit(frame, infer_schema(frame, []), ALL)
    expected = codes(encoder, encoder.transform(frame[[0, 1]]), "grade")
    for other in (pl.DataFrame({"grade": [1, 2] * 60, "size": ALL}), pl.DataFrame({"grade": [1.0, 2], "size": [1, 2]})):
        assert codes(encoder, encoder.transform(other), "grade")[:2] == expected


def test_a_number_asked_of_text_makes_other_text_missing():
    frame = pl.DataFrame({"dirty": [*map(str, range(N - 1)), "broken"]})
    encoder = FeatureEncoder.fit(frame, infer_schema(frame, [], overrides={"dirty": "number"}), ALL)
    found = encoder.transform(frame).numbers[:, 0]
    assert np.isnan(found[-1])
    assert found[:3].tolist() == [0, 1, 2]
    words = pl.DataFrame({"dirty": ["a", "b"] * 60})
    with pytest.raises(RequestError, match="'dirty' has the role 'number', but no training value is one"):
        FeatureEncoder.fit(words, infer_schema(words, [], overrides={"dirty": "number"}), ALL)


@pytest.mark.parametrize("rows", [1, N])
@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("size", "big", "Column 'size' held numbers when the model was trained, and holds text here, .*'big'"),
        ("size", dt.date(2020, 1, 1), "held numbers .* holds date here"),
        ("carrier", 7, "Column 'carrier' held text .* holds numbers here, for example 7. Convert"),
        ("carrier", True, "held text .* holds true or false"),
        ("zip", "abc", "'zip' held numbers .* holds text"),
        ("flag", "maybe", "'flag' held true or false .* holds text here, for example 'maybe'"),
        ("flag", 7, "'flag' held true or false .* holds numbers"),
        ("moment", 5, "'moment' held dates .* holds numbers"),
        ("moment", "tomorrow", "'moment' held dates .* holds text here, for example 'tomorrow'"),
    ],
)
def test_refused_changes_of_type(encoder, rows, column, value, message):
    frame = table().head(rows).with_columns(pl.lit(value).alias(column))
    with pytest.raises(RequestError, match=message):
        encoder.transform(frame)
    with pytest.raises(RequestError, match=message):
        encoder.transform_row(frame.row(0, named=True))


def test_a_missing_column(encoder):
    frame = table().rename({"carrier": "carier"})
    message = "lacks the column 'carrier', which the model reads. Did you mean 'carier'.*Add the column"
    with pytest.raises(RequestError, match=message):
        encoder.transform(frame)
    with pytest.raises(RequestError, match=message):
        encoder.transform_row(frame.row(0, named=True))
    with pytest.raises(RequestError, match=r"'size' \(and 12 others\)"):
        encoder.transform_row({"unused": 1})


cells = {
    "number": st.none() | st.floats(allow_nan=True, allow_infinity=True),
    "huge": st.none() | st.integers(-(2**62), 2**62),
    "text": st.none() | st.sampled_from(["a", "b", "NA", "", "1", "é"]),
    "code_type": st.none() | st.integers(-2, 3),
    "share_type": st.none() | st.sampled_from([0.0, -0.0, 0.5, 1.0, float("nan"), float("inf")]),
    "flag": st.none() | st.booleans(),
    "day": st.none() | st.dates(dt.date(1800, 1, 1), dt.date(2200, 1, 1)),
    "moment": st.none() | st.datetimes(dt.datetime(1800, 1, 1), dt.datetime(2200, 1, 1)),
    "clock": st.none() | st.times(),
    "lasted": st.none() | st.timedeltas(dt.timedelta(-9999), dt.timedelta(9999)),
}
TYPES = {
    "number": pl.Float64, "huge": pl.Int64, "text": pl.String, "code_type": pl.Int16, "share_type": pl.Float64,
    "flag": pl.Boolean, "day": pl.Date, "moment": pl.Datetime("us"), "clock": pl.Time, "lasted": pl.Duration("us"),
}  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(st.fixed_dictionaries(cells), min_size=2, max_size=12))
def test_python_and_polars_paths_agree(rows):
    frame = pl.DataFrame(rows, schema=TYPES)
    schema = infer_schema(frame, [], overrides={"share_type": "category"})
    encoder = FeatureEncoder.fit(frame, schema, np.arange(len(rows)), min_count=2)
    small = encoder.transform(frame)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features_module, "SMALL", -1)
        large = encoder.transform(frame)
    assert same(small, large)
    for place, row in enumerate(rows):
        assert same(encoder.transform_row(row), small.take(np.array([place])))


def test_one_row_is_quick():
    columns = {f"n{place}": np.arange(N) * 1.5 for place in range(20)}
    frame = pl.DataFrame(columns | {f"c{place}": ["x", "y"] * 60 for place in range(10)})
    encoder = FeatureEncoder.fit(frame, infer_schema(frame, []), ALL)
    one, row = frame.head(1), frame.row(0, named=True)
    for encode, given_row, limit in ((encoder.transform, one, 0.3e-3), (encoder.transform_row, row, 0.1e-3)):
        times = []
        for _ in range(200):
            start = time.perf_counter()
            encode(given_row)
            times.append(time.perf_counter() - start)
        assert min(times) < limit
