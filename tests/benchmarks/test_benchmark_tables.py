import argparse
import json
import sys
from typing import ClassVar

import numpy as np
import polars as pl
import pytest

for needed in ("xgboost", "catboost", "sklearn", "lightgbm"):
    pytest.importorskip(needed)

import _cell  # noqa: E402
import tables  # noqa: E402
from _bars import bars  # noqa: E402
from _datasets import DATA, DATASETS, SMALL, Dataset  # noqa: E402
from _encoding import Encoded  # noqa: E402
from _rivals import RIVALS  # noqa: E402

GRADE = argparse.Namespace(name="grade")
needs_data = pytest.mark.skipif(not DATA.exists(), reason="the tables are not there")


def test_a_strange_name_is_refused():
    with pytest.raises(argparse.ArgumentTypeError, match="no titanic; there are: flights, rf1"):
        tables.names({"flights": 1, "rf1": 2})("flights,titanic")


def test_seeds_are_listed_or_a_range():
    assert tables.seeds("0..4") == [0, 1, 2, 3, 4]
    assert tables.seeds("3,1") == [3, 1]
    assert tables.names({"a": 1, "b": 2}, small=["b"])("small,a") == ["b", "a"]


def test_what_no_seed_changes_is_measured_once_and_each_table_has_its_time():
    asked = tables.parser().parse_args(
        ["--data-sets", "yeast,tasks_bank", "--best", "--rivals", "lightgbm,mlp,lightgbm_per_task", "--seeds", "0..1"]
    )
    cells = [(cell.dataset, cell.rival, cell.seed, cell.time_limit) for cell in tables.cells_of(asked)]
    yeast, bank = tables.LIMITS[tables.DATASETS["yeast"]], tables.LIMITS[tables.DATASETS["tasks_bank"]]
    assert cells == [
        ("yeast", "motet_best", 0, yeast), ("yeast", "lightgbm", 0, yeast), ("yeast", "mlp", 0, yeast),
        ("yeast", "motet_best", 1, yeast), ("yeast", "mlp", 1, yeast),
        ("tasks_bank", "motet_best", 0, bank), ("tasks_bank", "lightgbm", 0, bank), ("tasks_bank", "mlp", 0, bank),
        ("tasks_bank", "lightgbm_per_task", 0, bank), ("tasks_bank", "motet_best", 1, bank),
        ("tasks_bank", "mlp", 1, bank),
    ]  # fmt: skip


def test_the_bars_take_the_best_rival_of_each_target():
    kinds = {"a": {"kind": "binary"}, "b": {"kind": "regression"}}
    values = {"lightgbm": (0.7, 2.0), "mlp": (0.8, 4.0), "motet_best": (0.75, 1.0)}
    cells = [
        {"dataset": "d", "rival": rival, "scores": {
            "a": {"roc_auc": a, "log_loss": 1.0}, "b": {"r2": 1 - b / 10, "rmse": b}}}
        for rival, (a, b) in values.items()
    ]  # fmt: skip
    noise = np.linspace(-0.01, 0.01, 500)
    resampled = {("d", rival): {"a": [a + noise], "b": [1 - b / 10 + noise]} for rival, (a, b) in values.items()}
    resampled["d", "mlp"]["a"] = [0.8 - 6 * noise]
    found = bars({"data_sets": {"d": {"targets": kinds}}, "cells": cells}, resampled)["d"]["motet_best"]
    assert [found["targets"][name]["rival"] for name in "ab"] == ["mlp", "lightgbm"]
    assert (found["held"], found["won"], found["of"]) == (2, 1, 2)
    assert found["delta_m_percent"] == pytest.approx((100 * 0.05 / 0.7 + 50.0) / 2, abs=1e-3)
    assert found["delta_m_best_percent"] == pytest.approx((-100 * 0.05 / 0.8 + 50.0) / 2, abs=1e-3)


@needs_data
@pytest.mark.parametrize("name", [name for name in SMALL if name.startswith("tasks_")])
def test_each_task_has_its_share_of_every_split(name):
    dataset = DATASETS[name](DATA)
    assert dataset.task_column in dataset.features
    parts = dataset.frame.group_by("task").agg(pl.col("split").n_unique().alias("parts"), pl.len())
    assert parts.filter(pl.col("len") >= 10)["parts"].min() == 3
    assert dataset.frame["split"].null_count() == 0


@needs_data
def test_trees_of_one_task_learn_its_rows_alone():
    encoded = Encoded(DATASETS["tasks_abalone"](DATA))
    fitted = RIVALS["lightgbm_per_task"](encoded, 0, 1, 4.0)
    assert "3 tasks have trees of their own" in fitted.notes[0]
    matrix = encoded.matrix(encoded.dataset.part("test"))
    other = matrix.copy()
    other[:, encoded.column("task")] = (other[:, encoded.column("task")] + 1) % 3
    found = [fitted.predict(part, 1)["target"] for part in (matrix, other)]
    assert not np.allclose(*found)
    other[:, encoded.column("task")] = 99  # a task that nobody knows: the pooled trees answer
    assert np.isfinite(fitted.predict(other, 1)["target"]).all()


def test_a_cell_runs_once_and_is_kept(tmp_path, monkeypatch):
    cell = _cell.Cell("yeast", "mlp", 0, 1, 5.0)
    calls = []

    def pretend(command, **settings):
        calls.append(command)
        (tmp_path / f"{cell.stem}.json").write_text(json.dumps(vars(cell)))
        return argparse.Namespace(returncode=0, stderr="", stdout="")

    monkeypatch.setattr(tables.subprocess, "run", pretend)
    monkeypatch.setattr(tables, "commit", lambda: "abc")
    first = tables.run(cell, DATA, tmp_path, again=False)
    assert tables.run(cell, DATA, tmp_path, again=False) == first
    assert len(calls) == 1
    monkeypatch.setattr(tables, "fingerprint", lambda cell: "other code")
    tables.run(cell, DATA, tmp_path, again=False)
    assert len(calls) == 2  # the code changed: the numbers are old


def test_a_cell_that_fails_says_why(tmp_path, monkeypatch):
    fallen = argparse.Namespace(returncode=1, stderr="Traceback\nValueError: no such column\n", stdout="")
    monkeypatch.setattr(tables.subprocess, "run", lambda *a, **k: fallen)
    found = tables.run(_cell.Cell("yeast", "mlp", 0, 1, 5.0), DATA, tmp_path, again=False)
    assert "ValueError: no such column" in found["error"]


@needs_data
def test_one_small_run_end_to_end(tmp_path, capsys):
    out, cache = tmp_path / "tables.json", tmp_path / "cache"
    asked = ["--data-sets", "yeast", "--rivals", "mlp,lightgbm", "--time-limit", "1", "--threads", "1"]
    with pytest.raises(SystemExit) as stopped:
        tables.main([*asked, "--out", str(out), "--cache", str(cache)])
    assert stopped.value.code == 0
    last = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert last["cells"] == 2
    assert set(last["scores"]["yeast"]["Class1"]) == {"mlp", "lightgbm"}
    document = json.loads(out.read_text())
    assert document["hardware"]["cores"] >= 1
    assert {"polars", "lightgbm"} <= set(document["versions"])
    for cell in document["cells"]:
        assert cell["fit_seconds"] > 0
        assert cell["peak_rss_bytes"] > 50e6
        assert 0.4 < cell["scores"]["Class2"]["roc_auc"] < 1
    interval = document["against"]["intervals"]["yeast"]["mlp"]["Class1"]
    assert interval["at_least_as_good"] == (interval["ci95"][1] >= 0)
    with np.load(cache / "yeast-mlp-0-1t-1s.npz") as arrays:
        assert arrays["predicted/Class1"].shape == arrays["truth/Class1"].shape == (363,)
    with np.load(cache / "yeast-mlp-0-1t-1s.scores.npz") as arrays:
        assert arrays["Class1"].shape == (500,)


def test_motets_classes_are_put_in_the_order_of_the_truth(monkeypatch, tmp_path):
    class Model:
        """Stands in for motet.TabularModel: knows its classes in another order, and lacks one."""

        metrics_: ClassVar = {"tasks": {"grade": {"served_by": "shared"}}, "seconds": {"total": 1.0}}
        run_: ClassVar = {"notes": ["a note"]}

        def __init__(self, **settings):
            assert settings["split_column"] == "split"
            if "settings" in settings:
                assert settings["settings"] == "deploys best"
            assert [target.name for target in settings["targets"]] == ["grade"]

        def fit(self, frame):
            assert "split" in frame.columns
            return self

        def save(self, path):
            path.mkdir()
            (path / "model").write_bytes(b"12345")

        def task(self, name):
            return argparse.Namespace(classes=("c", "a"))

        def estimate(self, frame):
            assert frame.columns == ["x"]
            return {"grade": np.array([[0.9, 0.1]] * len(frame))}

        def predict(self, frame):
            return frame

    fake = argparse.Namespace(TabularModel=Model, load=lambda path: Model(split_column="split", targets=[GRADE]))
    fake.Multiclass = lambda name: argparse.Namespace(name=name)
    fake.FitSettings = lambda *, deploy: f"deploys {deploy}"
    monkeypatch.setitem(sys.modules, "motet", fake)
    frame = pl.DataFrame({"x": [1, 2, 3], "grade": ["a", "b", "c"], "split": ["train"] * 3})
    encoded = Encoded(Dataset("tiny", frame, (("grade", "multiclass"),)))
    contender = _cell._fit_motet(encoded, _cell.Cell("tiny", "motet_best", 0, 1, 1.0))
    assert contender.artefact_bytes == 5
    assert contender.notes == ["grade: shared", "a note", '{"total": 1.0}']
    assert contender.estimate(frame.select("x"))["grade"].tolist() == [[0.1, 0.0, 0.9]] * 3
