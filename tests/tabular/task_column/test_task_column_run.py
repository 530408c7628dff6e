"""A fit with a task column is a run: whole files, resumed where it was cut off, and read by every question."""

import json

import numpy as np
import polars as pl
import pytest
import torch
from school_tables import quick_model, schools

import motet
from motet import RequestError, RunError
from motet.tabular import TaskColumnModel

TABLE = schools()


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run whose table has a task without labels."""
    out = tmp_path_factory.mktemp("schools") / "run"
    unlabelled = TABLE.head(30).with_columns(school=pl.lit("s9"), score=pl.lit(None, pl.Float64))
    quick_model(learners=("embedding",)).fit(pl.concat([TABLE, unlabelled]), out=out)
    return out


@pytest.fixture(scope="module")
def model(run):
    return TaskColumnModel.load(run)


def test_the_files_are_those_of_any_run(run):
    names = {path.name for path in run.iterdir()}
    assert names == {"run.json", "model.safetensors", "metrics.json", "log.jsonl"}
    document, metrics = (json.loads((run / name).read_text()) for name in ("run.json", "metrics.json"))
    assert (document["status"], document["form"], document["format"]) == ("complete", "task_column", 1)
    assert document["split"]["how"] == "by task"
    assert {column["name"] for column in document["schema"]} == set(TABLE.columns)
    assert set(metrics["tasks"]) == {f"s{code}" for code in range(8)}
    assert set(metrics["seconds"]) == {"pooled", "own_lightgbm", "embedding", "total"}
    assert metrics["compute"]["pooled"]["rows"] > 0


def test_each_task_is_held_against_its_own_model(model):
    for name, task in model.metrics_["tasks"].items():
        rows = TABLE.filter((pl.col("school") == name) & pl.col("score").is_not_null()).height
        assert task["train_rows"] == pytest.approx(0.64 * rows, abs=3)
        assert task["served_by"] == "shared"  # 60 train rows a school are too few for trees of their own
        assert task["guard"]["verdict"] == "not worse"
        assert task["guard"]["tested"] == "together"
        assert task["rows"] < 20
        assert (task["gain_percent"], task["ci95"]) == (None, None)
    overall = model.metrics_["overall"]
    assert overall["gain_percent"] == pytest.approx(100 * (1 - overall["motet"] / overall["single_task"]), abs=1e-3)
    assert 0 < overall["ci95"][0] < overall["gain_percent"] < overall["ci95"][1]
    assert any("1 tasks have no labelled train row ('s9')" in note for note in model.notes_)


def test_intervals_are_of_the_task_and_hold_about_what_they_say(model):
    fresh = schools(4000, seed=1)
    found = model.predict(fresh, intervals=True, sources=True)
    assert found.columns == ["score", "score_low", "score_high", "score_served_by"]
    both = found.with_columns(truth=fresh["score"]).drop_nulls()
    inside = ((both["truth"] >= both["score_low"]) & (both["truth"] <= both["score_high"])).mean()
    assert 0.8 < inside < 0.98
    assert both["score_served_by"].unique().to_list() == ["shared"]


def test_rows_that_fall_back_are_told_apart(model):
    rows = TABLE.head(3).with_columns(school=pl.Series(["s0", "nowhere", "s9"]))
    found = model.predict(rows, sources=True, intervals=True)
    assert found["score_served_by"].to_list() == ["shared", "common", "common"]
    assert found["score_low"].null_count() == 0
    assert model.notes_[0].startswith("2 of 3 rows belong to tasks that were not learned ('nowhere', 's9')")


def test_scores_over_all_and_of_one_task(model):
    fresh = schools(400, seed=2)
    found = model.evaluate(fresh, tasks=["score", "s1"])
    for name, part in (("score", fresh), ("s1", fresh.filter(school="s1"))):
        error = (model.predict(part)["score"] - part["score"]).drop_nulls().to_numpy()
        assert found[name]["rows"] == len(error)
        assert found[name]["metrics"]["rmse"] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-5)
        assert found[name]["ci95"][0] < found[name]["metrics"]["rmse"] < found[name]["ci95"][1]
    assert set(model.evaluate(fresh)) == {"score"}
    with pytest.raises(RequestError, match=r"'s77' is neither the target 'score' nor a task in 'school'"):
        model.evaluate(fresh, tasks=["s77"])


def test_slices_by_the_task_column_are_its_tasks(model):
    fresh = schools(1200, num_tasks=30, seed=3)
    by_task = model.slices(fresh, by="school")
    assert by_task["slice"].to_list() == sorted(f"s{code}" for code in range(30))
    assert by_task["rows"].sum() == fresh["score"].count()
    assert model.slices(fresh, by="x", tasks=["s1"], bins=2)["rows"].sum() == fresh.filter(school="s1")["score"].count()


def test_effects_over_all_tasks_and_of_one(model):
    fresh = schools(600, seed=4)
    found = model.effects(fresh, tasks=["score", "s2"], repeats=2)
    for name in ("score", "s2"):
        part = found.filter(target=name)
        # Within one school its name says nothing.
        assert set(part["feature"]) == {"x", "hours", "noise", *(["school"] if name == "score" else [])}
        assert part["feature"][0] == "x"
        assert part["low"][0] > 0
    checks = model.check_effects(fresh, found.filter(target="score"))
    assert checks["verdict"].to_list() == ["supported"]


class Interrupts:
    """A display that presses Ctrl-C when a stage begins."""

    def __init__(self, stage):
        self.stage, self.stages = stage, []

    def __call__(self, record):
        if record["event"] == "stage":
            self.stages.append(record["stage"])
            if record["stage"] == self.stage:
                raise KeyboardInterrupt

    def close(self):
        pass


def test_a_fit_that_was_cut_off_goes_on_and_gives_the_same(tmp_path):
    asked = {"learners": ("embedding",), "seed": 3}
    small = schools(300)
    whole = quick_model(**asked).fit(small)
    with pytest.raises(KeyboardInterrupt):
        quick_model(**asked).fit(small, out=tmp_path / "run", display=Interrupts("embedding"))
    assert {path.name for path in (tmp_path / "run" / "work").iterdir()} == {
        "pooled.safetensors", "own_lightgbm.safetensors"
    }  # fmt: skip
    with pytest.raises(RunError, match="--resume"):
        TaskColumnModel.load(tmp_path / "run")
    with pytest.raises(RequestError, match="asked for with another seed"):
        quick_model(**asked | {"seed": 4}).fit(small, out=tmp_path / "run", resume=True)
    shown = Interrupts("")
    resumed = quick_model(**asked).fit(small, out=tmp_path / "run", resume=True, display=shown)
    assert shown.stages == ["prepare", "embedding", "choose"]
    assert resumed.metrics_["tasks"] == whole.metrics_["tasks"]
    assert {n: c["rows"] for n, c in resumed.metrics_["compute"].items()} == {
        n: c["rows"] for n, c in whole.metrics_["compute"].items()
    }
    again = TaskColumnModel.load(tmp_path / "run")
    assert again.predict(small, intervals=True).equals(whole.predict(small, intervals=True))
    with pytest.raises(RequestError, match="finished run, which is never overwritten"):
        quick_model(**asked).fit(small, out=tmp_path / "run", resume=True)


def test_each_loader_names_the_other(run, tmp_path):
    with pytest.raises(RequestError, match=r"has a task column.*TaskColumnModel\.load"):
        motet.load(run)
    (tmp_path / "run.json").write_text(json.dumps({"format": 1, "status": "complete"}))
    with pytest.raises(RequestError, match=r"has no task column.*motet\.load"):
        TaskColumnModel.load(tmp_path)


def test_a_damaged_run_says_so(run, tmp_path):
    document = json.loads((run / "run.json").read_text())
    del document["task_column"]["known"]
    (tmp_path / "run.json").write_text(json.dumps(document))
    (tmp_path / "model.safetensors").write_bytes((run / "model.safetensors").read_bytes())
    with pytest.raises(RunError, match=r"is damaged: .*KeyError.*Restore"):
        TaskColumnModel.load(tmp_path)


def test_the_form_from_before_runs_is_still_read(model, tmp_path):
    served = model.served_
    learner, tensors = served.shared.to_files()
    document = {
        "format": 1, "task": served.task.to_dict(), "task_column": "school", "seed": 0,
        "features": served.encoder.to_dict(), "known": sorted(served.known), "learner": learner,
        "metrics": {"served_by": served.shared.name, "learners": {}}, "notes": [], "readings": [],
    }  # fmt: skip
    (tmp_path / "task_column.json").write_text(json.dumps(document))
    motet.train.write_tensors(tmp_path / "model.safetensors", tensors)
    old = TaskColumnModel.load(tmp_path)
    assert old.predict(TABLE).equals(model.predict(TABLE))
    assert old.save(tmp_path / "new").name == "new"
    assert TaskColumnModel.load(tmp_path / "new").predict(TABLE).equals(model.predict(TABLE))
