"""`motet synth`: the table, the record, and the fit that it names."""

import shlex

import polars as pl
import pytest


def test_a_table_and_its_record(motet, tmp_path):
    out = tmp_path / "table.parquet"
    words = ["--tasks", 4, "--rows", 300, "--kinds", "regression,binary", "--missing", "0,.3", "--correlation", ".6"]
    called = motet("synth", out, *words, "--json")
    assert called.code == 0
    assert called.document["correlation"]["asked"] == 0.6
    assert called.document["rows"] == pl.read_parquet(out).height == 300
    assert [task["kind"] for task in called.document["tasks"]] == ["regression", "binary"] * 2
    text = motet("synth", tmp_path / "again.parquet", *words)
    assert "0.6 of directions asked for; 0.600 between their directions" in text.out
    assert "--target task_2:binary" in text.out


@pytest.mark.parametrize("more", [[], ["--form", "long", "--degree", "1"], ["--drift", ".5"]])
def test_the_fit_that_it_names_runs(motet, tmp_path, monkeypatch, more):
    monkeypatch.chdir(tmp_path)
    line = motet("synth", "a table.csv", "--rows", 300, "--tasks", 2, "--json", *more).document["fit"]
    words = shlex.split(line)
    assert words[:3] == ["motet", "fit", "a table.csv"]
    assert motet(*words[1:], "--max-epochs", 1).code == 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--correlation", "2"], "Choose one in between"),
        (["--degree", "a"], "--degree 'a' was given; numbers joined by commas were expected"),
        (["--missing", "0;1"], "such as --missing 0,.5"),
    ],
)
def test_a_wrong_request_writes_nothing(motet, tmp_path, more, message):
    called = motet("synth", tmp_path / "t.parquet", *more)
    assert called.code == 2
    assert message in called.err
    assert not list(tmp_path.iterdir())


def test_a_table_that_is_there_is_kept(motet, tmp_path):
    out = tmp_path / "mine.csv"
    out.write_text("a,b\n1,2\n")
    called = motet("synth", out, "--rows", 100)
    assert called.code == 2
    assert "is there already; a new file was expected" in called.err
    assert out.read_text() == "a,b\n1,2\n"
