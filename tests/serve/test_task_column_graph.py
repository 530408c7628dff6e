"""A run with a task column as a graph: each learner, own models and blends beside it, tasks unseen, rare and none."""

from dataclasses import replace
from functools import cache

import numpy as np
import polars as pl
import pytest

from motet._errors import RequestError
from motet.serve import export_onnx
from motet.serve._check import differences
from motet.serve._export import _described, _graph
from motet.serve._rows import made_up
from motet.tabular import TaskColumnModel
from motet.tabular.task_column._learners import LEARNERS, Budget
from motet.tabular.task_column._own import Own
from motet.tabular.task_column._served import ServedTasks
from motet.tabular.task_column._table import TaskTable, owners_of, read_task_table
from motet.tasks import Calibration, Interval
from motet.train import Clock

pytest.importorskip("onnxscript", reason="motet[onnx] is an extra")
BUDGET = Budget(Clock(None), 0, 1, 1)


def shops(task: str = "text", num_rows: int = 600) -> pl.DataFrame:
    """Six shops of 80 rows and more, one of three rows, and rows without a shop."""
    draw = np.random.default_rng(0)
    code = np.where(np.arange(num_rows) < 3, 6, draw.integers(0, 7, num_rows) % 6)
    x = draw.normal(size=(num_rows, 2))
    names = pl.Series(code) if task == "number" else pl.Series([f"s{one}" for one in code])
    size = 3 * x[:, 0] + np.where(code == 2, -8.0, 1.0) * x[:, 1]
    return pl.DataFrame({
        "x": x[:, 0], "y": x[:, 1], "town": np.array(["a", "b", "c"])[draw.integers(0, 3, num_rows)],
        "shop": names if task != "boolean" else pl.Series(code % 2 == 0),
        "size": size, "sold": size + draw.normal(size=num_rows) > 0, "orders": np.clip(np.round(size), 0, 20),
        "grade": np.array(["low", "mid", "high"])[np.digitize(size, [-2, 2])],
    }).with_columns(shop=pl.when(pl.Series(np.arange(num_rows) % 13 == 5)).then(None).otherwise("shop"))  # fmt: skip


@cache
def ready(target: str, task: str = "text") -> TaskTable:
    unused = {"size", "sold", "orders", "grade"} - {target.partition(":")[0]}
    roles = dict.fromkeys(unused, "ignored")
    return read_task_table(shops(task), target, "shop", split=None, split_column=None, roles=roles, seed=0)


@cache
def own(target: str, task: str = "text") -> Own:
    return Own.fit(ready(target, task), BUDGET)


def served(learner: str, target: str, task: str = "text") -> ServedTasks:
    """The learner for all tasks but two: one keeps its own model, one is answered by half of each."""
    table = ready(target, task)
    known = sorted(set(own(target, task).constants))
    kept, half = known[-1], known[0]
    calibration = Calibration("platt", (1.3,), (0.2,)) if target.startswith("sold") else Calibration()
    return ServedTasks(
        table.task, "shop", table.prepared.encoder, frozenset(known), LEARNERS[learner].fit(table, BUDGET),
        own(target, task).only(frozenset({kept, half})), frozenset({half}),
        {learner: calibration, Own.name: Calibration()}, {}, None,
    )  # fmt: skip


def strangers(task: str) -> pl.DataFrame:
    """Real rows, every fifth of a shop that nobody knows."""
    frame = shops(task).head(300)
    if task == "boolean":
        return frame
    return frame.with_columns(
        shop=pl.when(pl.Series(np.arange(300) % 5 == 1))
        .then(pl.lit(99 if task == "number" else "new"))
        .otherwise("shop")
    )


@pytest.mark.parametrize(
    ("learner", "target", "task"),
    [
        ("pooled", "size:regression", "text"), ("pooled", "grade:multiclass", "number"),
        ("robust", "sold:binary", "text"), ("robust", "orders:count", "boolean"),
        ("embedding", "size:regression", "number"), ("heads", "grade:multiclass", "text"),
        ("heads", "sold:binary", "text"),
    ],
)  # fmt: skip
def test_the_graph_says_what_the_run_says(learner, target, task):
    model = served(learner, target, task)
    name = model.task.name
    document = _graph(model, [name], _described(model, [name], {name: getattr(model.task, "classes", None) or ()}),
                      "float32")  # fmt: skip
    for frame in (strangers(task), made_up(model, 200, 0)):
        if task != "boolean":
            assert {"common", "shared"} <= set(model.sources(owners_of(frame, "shop")).tolist())
        assert differences(document, model, frame, [name])[name] < 1e-5


def test_blocks_that_are_split_are_mixed_by_each_tasks_gate(monkeypatch):
    """Only blocks: the plan with a near and a far side, whatever the stop rows say of it."""
    monkeypatch.setattr(LEARNERS["robust"], "plans", ("blocks",))
    model = served("robust", "size:regression")
    assert {"near", "far"} <= {name for name, text in model.shared.model._learned.texts.items() if text}
    assert len(np.unique(np.round(model.shared.model._shares(), 3))) > 1
    document = _graph(model, ["size"], _described(model, ["size"], {}), "float32")
    assert differences(document, model, strangers("text"), ["size"])["size"] < 1e-5


def test_a_wrong_graph_would_be_found():
    model = served("pooled", "size:regression")
    document = _graph(replace(model, blended=frozenset()), ["size"], _described(model, ["size"], {}), "float32")
    assert differences(document, model, strangers("text"), ["size"])["size"] > 1e-2


def test_a_fitted_model_is_written_with_what_answers_each_task(tmp_path):
    table = ready("size:regression")
    model = TaskColumnModel("size:regression", task_column="shop")
    with pytest.raises(RequestError, match="not fitted"):
        export_onnx(model, tmp_path / "out")
    ends = {"s1": Interval("absolute", 0.9, 2.0)}
    others = Interval("absolute", 0.9, 3.0)
    model.served_ = replace(served("pooled", "size:regression"), intervals=ends, interval=others)
    found = export_onnx(model, tmp_path / "out", table=strangers("text"))
    assert found.document["task_column"] == "shop"
    (output,) = found.document["outputs"]
    assert output["by_task"]["served_by"] == {
        "(none)": "mean", "s0": "shared", "s1": "shared", "s2": "shared", "s3": "shared", "s4": "shared",
        "s5": "shared", "s6": "own_lightgbm",
    }  # fmt: skip
    assert output["interval"]["radius"] == 3.0
    assert output["by_task"]["intervals"]["s1"]["radius"] == 2.0
    assert {one["name"] for one in found.document["inputs"]} == {"x", "y", "town", "shop"}
    assert found.document["check"]["rows"] == 300
    assert table.task.name == output["name"]
    with pytest.raises(RequestError, match=r"no target 'siz'.*Did you mean 'size'"):
        export_onnx(model, tmp_path / "other", tasks=["siz"])
