"""`motet export`: one graph that answers as the run does, and requests that leave nothing behind."""

import json
import sys

import numpy as np
import onnxruntime
import polars as pl
import pytest
from cli_table import files

import motet as package
from motet.serve._columns import feed


@pytest.fixture(scope="module")
def graph_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("onnx") / "out"


def test_the_graph_answers_as_the_run_does(motet, finished, table_file, graph_folder):
    before = files(finished)
    called = motet("export", finished, "-o", graph_folder, "--format", "onnx", "--table", table_file, "--json")
    assert called.code == 0, called.err
    assert files(finished) == before
    document = called.document
    assert document["check"]["rows"] == 400
    assert max(document["check"]["largest_difference"].values()) < 1e-4
    assert json.loads((graph_folder / "model.json").read_text()).items() <= document.items()
    model, frame = package.load(finished), pl.read_parquet(table_file)
    session = onnxruntime.InferenceSession(graph_folder / "model.onnx", providers=["CPUExecutionProvider"])
    columns = {name: values[:50] for name, values in feed(model.served_.encoder, frame).items()}
    expected = model.estimate(frame[:50])
    for name, found in zip(expected, session.run(list(expected), columns), strict=True):
        np.testing.assert_allclose(found, expected[name], rtol=1e-4, atol=1e-4)


def refused(called, *parts: str, code: int = 2) -> None:
    for part in parts:
        assert part in called.err
    assert called.code == code
    assert "Traceback" not in called.err
    assert called.out == ""


def test_wrong_requests_leave_nothing(motet, finished, tmp_path):
    out = tmp_path / "out"
    refused(motet("export", tmp_path / "gone", "-o", out), "There is no folder", "Check the path")
    refused(motet("export", finished, "-o", out, "--target", "prize"), "no target 'prize'", "'price'?")
    refused(motet("export", finished, "-o", finished), "is not empty", "Choose another")
    refused(motet("export", finished, "-o", out, "--format", "pickle"), "pickle", "export --help")
    refused(motet("export", finished, "-o", out, "--tolerance", "0", "--target", "price"), "at most 0", code=1)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_extra_is_named_with_its_line(motet, finished, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    refused(motet("export", finished, "-o", tmp_path / "out"), "'onnxscript'", "pip install 'motet[onnx]'", code=1)
    assert not (tmp_path / "out").exists()
