"""Raw columns through a graph, against the encoder in Python."""

import numpy as np
import polars as pl
import pytest
from runtime import EPOCHS, columns, encoder, run

from motet import RequestError
from motet.data import FeatureEncoder, infer_schema
from motet.serve._columns import feed, inputs_of
from motet.serve._dates import date_part
from motet.serve._encoding import encode
from motet.serve._graph import Graph
from motet.tasks import Regression


def encoded(fitted: FeatureEncoder, values: dict[str, np.ndarray]) -> list[np.ndarray]:
    graph = Graph()
    found = encode(graph, fitted)
    return run(graph, {one.name: (one.type, 1) for one in inputs_of(fitted)}, list(found.values()), values)


def test_the_graph_encodes_every_sort_of_column_as_the_encoder_does():
    frame = columns()
    fitted = encoder(frame)
    assert {column.source for column in fitted.category_columns} == {"text", "number", "boolean"}
    assert len(fitted.date_columns) == 1
    assert any(column.offset for column in fitted.number_columns)
    expected = fitted.transform(frame)
    numbers, codes = encoded(fitted, feed(fitted, frame))
    np.testing.assert_array_equal(numbers, expected.numbers)
    np.testing.assert_array_equal(codes, expected.categories)
    assert {0, 1, 2} <= set(codes.ravel().tolist())
    assert np.isnan(numbers).any(axis=0).all()


def test_what_another_program_sends_is_read_as_the_documents_say():
    fitted = encoder(columns())
    row = {"size": [np.nan], "huge": [1e12], "when": [0], "town": ["Köln"], "zone": [3.0], "open": [1.0]}
    kinds = {"float64": np.float64, "int64": np.int64, "text": object}
    values = {one.name: np.array(row[one.name], dtype=kinds[one.type]) for one in inputs_of(fitted)}
    plain = pl.DataFrame({"size": [None], "huge": [10**12], "when": ["1970-01-01"], "town": ["Köln"], "zone": [3],
                          "open": [True]}, schema_overrides={"size": pl.Float64})  # fmt: skip
    expected = fitted.transform(plain)
    numbers, codes = encoded(fitted, values)
    np.testing.assert_array_equal(numbers, expected.numbers)
    np.testing.assert_array_equal(codes, expected.categories)
    missing = {one.name: np.array([one.missing if one.missing != "NaN" else np.nan], dtype=kinds[one.type])
               for one in inputs_of(fitted)}  # fmt: skip
    numbers, codes = encoded(fitted, missing)
    assert np.isnan(numbers).all()
    assert (codes == 0).all()


@pytest.mark.parametrize("part", ["days", "month", "day", "weekday", "yearday", "hour"])
def test_a_dates_parts_need_no_calendar(part):
    days = np.arange(-200_000, 200_000, 37) * 86_400_000_000 + 12_345_678_901
    special = pl.Series(EPOCHS, dtype=pl.Datetime("us")).to_numpy().astype("M8[us]").astype(np.int64)
    moments = np.concatenate([special, days])
    graph = Graph()
    name = date_part(graph, "moments", part)
    (found,) = run(graph, {"moments": ("int64", 1)}, [name], {"moments": moments})
    series = pl.Series(moments, dtype=pl.Int64).cast(pl.Datetime("us"))
    clock = series.dt.hour() + series.dt.minute() / 60 + series.dt.second() / 3600 + series.dt.microsecond() / 3.6e9
    parts = {"days": moments / 86_400_000_000, "month": series.dt.month(), "day": series.dt.day(),
             "weekday": series.dt.weekday() - 1, "yearday": series.dt.ordinal_day(), "hour": clock}  # fmt: skip
    np.testing.assert_allclose(found, np.asarray(parts[part], dtype=np.float64), rtol=1e-12, atol=1e-9)


def test_a_table_of_numbers_alone_and_one_of_categories_alone():
    frame = columns().select("size", "price")
    fitted = encoder(frame)
    (numbers,) = encoded(fitted, feed(fitted, frame))
    np.testing.assert_array_equal(numbers, fitted.transform(frame).numbers)
    frame = columns().select("town", "price")
    fitted = encoder(frame)
    (codes,) = encoded(fitted, feed(fitted, frame))
    np.testing.assert_array_equal(codes, fitted.transform(frame).categories)


def test_an_empty_text_that_is_a_level_says_nothing_of_missing():
    frame = pl.DataFrame({"town": ["", "Ulm"] * 20, "price": np.arange(40.0)})
    rows = np.arange(40)
    fitted = FeatureEncoder.fit(frame, infer_schema(frame, [Regression("price")], rows=rows), rows)
    (one,) = inputs_of(fitted)
    assert one.missing is None
    (codes,) = encoded(fitted, {"town": np.array(["", "Ulm", "Bonn"], dtype=object)})
    np.testing.assert_array_equal(codes, fitted.transform(pl.DataFrame({"town": ["", "Ulm", "Bonn"]})).categories)


def test_a_column_without_a_name_is_refused():
    frame = pl.DataFrame({"": np.arange(40.0) % 7, "price": np.arange(40.0)})
    rows = np.arange(40)
    fitted = FeatureEncoder.fit(frame, infer_schema(frame, [Regression("price")], rows=rows), rows)
    with pytest.raises(RequestError, match=r"has no name.*Name the column"):
        inputs_of(fitted)
