"""Reading and writing tables, and the errors of bad ones."""

import errno
import gzip
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from motet._errors import RequestError, RequestTypeError, RunError
from motet.data import fingerprint, read_table, write_table

FRAME = pl.DataFrame({"a": [1, 2, 3], "b": ["x", None, "z"], "c": [0.5, 1.5, None]})


@pytest.mark.parametrize("ending", ["parquet", "csv", "tsv", "arrow", "feather", "ipc", "ndjson", "jsonl"])
def test_what_is_written_is_read_back(tmp_path, ending):
    path = tmp_path / f"table.{ending}"
    write_table(FRAME, path)
    assert read_table(path).equals(FRAME)
    assert read_table(str(path), columns=["c", "a"]).equals(FRAME.select("c", "a"))
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_everything_in_memory_is_a_table():
    rows = FRAME.to_dicts()
    batch = FRAME.to_arrow().to_batches()[0]
    sources = [FRAME, FRAME.lazy(), FRAME.to_pandas(), FRAME.to_arrow(), batch, FRAME.to_dict(as_series=False), rows]
    for source in sources:
        assert read_table(source).equals(FRAME)
        assert read_table(source, columns=["b"]).equals(FRAME.select("b"))


def test_a_folder_and_a_glob_of_parquet_files(tmp_path):
    FRAME.write_parquet(tmp_path / "1.parquet")
    FRAME.write_parquet(tmp_path / "2.parquet")
    assert read_table(tmp_path).equals(pl.concat([FRAME, FRAME]))
    assert read_table(str(tmp_path / "*.parquet")).height == 6
    with pytest.raises(RequestError, match=r"folder without .parquet files. Name a file"):
        read_table(_made(tmp_path / "empty"))
    (tmp_path / "a.csv").write_text("a\n1\n")
    with pytest.raises(RequestError, match="3 files match"):
        read_table(str(tmp_path / "*.*"))


def _made(folder):
    folder.mkdir()
    return folder


def test_csv_nulls_dates_and_late_types(tmp_path):
    path = tmp_path / "t.csv.gz"
    lines = ["n,late,day,word", *["1,2,2013-01-02,x"] * 10_005, "N/A,2.5,NA,?", "nan,,None,null"]
    with gzip.open(path, "wt") as file:
        file.write("\n".join(lines))
    frame = read_table(path)
    assert frame.dtypes == [pl.Int64, pl.Float64, pl.Date, pl.String]
    assert frame["n"].null_count() == frame["word"].null_count() == frame["day"].null_count() == 2
    assert frame["late"][10_005] == 2.5
    path = tmp_path / "semi.csv"
    path.write_text("a;b\n1;2\n")
    assert read_table(path).columns == ["a", "b"]
    path.write_text("\n".join(["a", *["1"] * 20_000, "none of it"]))
    assert read_table(path)["a"].dtype == pl.String


def test_a_missing_file_names_its_neighbour(tmp_path):
    (tmp_path / "flights.csv").write_text("a\n1\n")
    with pytest.raises(RequestError, match=r"no file '.*flight.csv'. Did you mean 'flights.csv'"):
        read_table(tmp_path / "flight.csv")
    with pytest.raises(RequestError, match="nor a folder"):
        read_table(tmp_path / "nowhere" / "flight.csv")


def test_unknown_endings_and_types(tmp_path):
    (tmp_path / "t.xlsx").write_text("a")
    with pytest.raises(RequestError, match=r"ending '.xlsx'; motet reads .parquet"):
        read_table(tmp_path / "t.xlsx")
    with pytest.raises(RequestTypeError, match="A table came as int; expected a path"):
        read_table(3)
    with pytest.raises(RequestError, match=r"no column 'bb'. Did you mean 'b'"):
        read_table({"a": [1], "b": [2]}, columns=["bb"])


def test_empty_tables(tmp_path):
    with pytest.raises(RequestError, match="has 1 columns and no rows"):
        read_table({"a": []})
    with pytest.raises(RequestError, match="has no columns"):
        read_table([])
    for text in ("", "a,b\n"):
        (tmp_path / "t.csv").write_text(text)
        with pytest.raises(RequestError, match="A table needs both"):
            read_table(tmp_path / "t.csv")


def test_duplicate_columns(tmp_path):
    (tmp_path / "t.csv").write_text("a,b,a\n1,2,3\n")
    with pytest.raises(RequestError, match=r"more than one column called 'a'.*rename or drop one"):
        read_table(tmp_path / "t.csv")
    with pytest.raises(RequestError, match="The pandas frame has more than one column called 'a'"):
        read_table(pd.DataFrame([[1, 2]], columns=["a", "a"]))
    with pytest.raises(RequestError, match="The Arrow table has more than one column called 'a'"):
        read_table(pa.table([pa.array([1]), pa.array([2])], names=["a", "a"]))


@pytest.mark.parametrize(
    "source",
    [
        {"a": [1, None, "n/a?"]},
        [{"a": 1}, {"b": 2}, {"a": "n/a?"}],
        pd.DataFrame({"a": [1, np.nan, "n/a?"]}, dtype=object),
    ],
)
def test_mixed_types_name_column_types_and_row(source):
    with pytest.raises(RequestError, match=r"Column 'a' mixes types: number, str; .* row 2 holds 'n/a\?' \(str\)"):
        read_table(source)


def test_whole_and_broken_numbers_go_together():
    assert read_table({"a": [1, 2.5, None]})["a"].to_list() == [1.0, 2.5, None]
    assert read_table(pd.DataFrame({"a": [True, None]}, dtype=object))["a"].to_list() == [True, None]


@pytest.mark.parametrize("ending", ["parquet", "arrow", "ndjson", "csv.gz"])
def test_damaged_files(tmp_path, ending):
    path = tmp_path / f"t.{ending}"
    path.write_bytes(b"PAR1 not a table \x00\xff" * 9)
    with pytest.raises(RequestError, match="cannot be read as"):
        read_table(path)
    if ending == "parquet":
        FRAME.write_parquet(path)
        path.write_bytes(path.read_bytes()[:-40])
        with pytest.raises(RequestError, match="damaged, cut off or of another kind"):
            read_table(path)


def test_csv_that_is_not_utf8_or_ragged(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes("a\nGöteborg\n".encode("latin-1"))
    with pytest.raises(RequestError, match="must be UTF-8"):
        read_table(path)
    path.write_text("a,b\n1,2,3\n")
    with pytest.raises(RequestError, match="as many fields as the first line has names"):
        read_table(path)


def test_writing_where_it_cannot_be(tmp_path, monkeypatch):
    with pytest.raises(RequestError, match=r"no folder .* Make the folder first"):
        write_table(FRAME, tmp_path / "none" / "t.csv")
    with pytest.raises(RequestError, match=r"ending '.xls'; motet writes .parquet"):
        write_table(FRAME, tmp_path / "t.xls")
    with pytest.raises(RequestError, match="is a folder"):
        write_table(FRAME, _made(tmp_path / "folder.csv"))
    with pytest.raises(RequestError, match=r"cannot hold this table.*Write .parquet"):
        write_table(pl.DataFrame({"a": [[1, 2]]}), tmp_path / "t.csv")
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(RequestError, match=r"may not be written. Choose another place"):
        write_table(FRAME, tmp_path / "t.csv")


def test_a_full_disk_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "t.parquet"
    write_table(FRAME, path)

    def full(self, file):
        file.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pl.DataFrame, "write_parquet", full)
    with pytest.raises(RunError, match=r"No space left on device. The disk is full; free some space"):
        write_table(FRAME, path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["t.parquet"]
    assert read_table(path).equals(FRAME)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("ending", ["parquet", "csv", "arrow", "ndjson"])
def test_a_device_that_is_full(tmp_path, ending):
    (tmp_path / f".t.{os.getpid()}.part.{ending}").symlink_to("/dev/full")
    with pytest.raises(RunError, match=rf"t.{ending}' was not written: .*The disk is full; free some space"):
        write_table(pl.DataFrame({"a": range(200_000)}), tmp_path / f"t.{ending}")
    assert list(tmp_path.iterdir()) == []


def test_fingerprint_sees_every_change_and_nothing_else():
    frame = FRAME.with_columns(
        d=pl.Series([[1, 2], [], None]), e=pl.Series([{"x": 1}, {"x": 2}, None]), f=pl.Series([b"a", None, b""])
    )
    seen = {fingerprint(frame)}
    changed = [
        frame.rename({"a": "z"}),
        frame.with_columns(pl.col("a").cast(pl.Int32)),
        frame.with_columns(pl.col("b").fill_null("")),
        frame.with_columns(pl.col("c").fill_null(0.0)),
        frame.with_columns(b=pl.Series(["xz", None, ""])),
        frame.with_columns(d=pl.Series([[1], [2], None])),
        frame.with_columns(d=pl.Series([[1, 2], None, []])),
        frame.with_columns(e=pl.Series([{"x": 1}, {"x": 3}, None])),
        frame.reverse(),
        frame.head(2),
    ]
    for other in changed:
        seen.add(fingerprint(other))
    assert len(seen) == len(changed) + 1
    chunked = pl.concat([frame.head(1), frame.tail(2)], rechunk=False)
    assert fingerprint(chunked) == fingerprint(frame)


def test_fingerprint_is_the_same_in_another_process():
    code = (
        "import polars as pl; from motet.data import fingerprint; "
        "print(fingerprint(pl.DataFrame({'a': [1, 2, 3], 'b': ['x', None, 'z'], 'c': [0.5, 1.5, None]})))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == fingerprint(FRAME)
