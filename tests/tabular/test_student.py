"""The small network's shape: which one, kept for a resumed fit, and how its tasks' losses are evened."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_tables import TARGETS, small_table

import motet
from motet import FitSettings, TabularModel
from motet.tabular import _student
from motet.tabular._network import NetworkShape, TrainedNetwork
from motet.tabular._prepared import Prepared, prepare
from motet.tabular._student import evened, lookup_shape, losses_of, student_shape
from motet.tabular._taught import Taught, pack
from motet.tasks import Regression
from motet.train import Clock

SETTINGS = FitSettings(max_epochs=4, threads=1, resamples=100, margin=95.0)


def table(rows: int = 600) -> Prepared:
    return prepare(small_table(rows), list(TARGETS), split="random", split_column=None, roles={}, seed=0)


def shared_of(prepared: Prepared) -> TrainedNetwork:
    shape = NetworkShape(4, len(prepared.encoder.number_names), tuple(prepared.encoder.category_sizes), width=8)
    torch.manual_seed(0)
    state = shape.build(prepared.tasks).state_dict()
    trained = SimpleNamespace(best=SimpleNamespace(joint_state=state))
    return TrainedNetwork(shape, tuple(prepared.tasks), {}, trained)  # type: ignore[arg-type]


def test_with_rows_enough_what_serves_looks_rows_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_student, "LOOKUP_ROWS", 500)
    out = tmp_path / "run"
    model = TabularModel(list(TARGETS), settings=SETTINGS).fit(small_table(1500), out=out)
    assert "distilled" in {part["served_by"] for part in model.metrics_["tasks"].values()}
    shapes = {
        network["candidate"]: network["shape"] for network in json.loads((out / "run.json").read_text())["networks"]
    }
    assert shapes["distilled"]["lookup"]
    loaded, asked = motet.load(out), small_table(40, seed=1)
    for name, estimates in model.estimate(asked).items():
        np.testing.assert_array_equal(loaded.estimate(asked, tasks=[name])[name], estimates)


def test_few_rows_or_little_time_keep_the_shared_shape_and_state(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = table()
    shared = shared_of(prepared)
    expected = (shared.shape, shared.trained.best.joint_state)
    assert student_shape(prepared, prepared, shared, Clock(), None, seed=0) == expected
    monkeypatch.setattr(_student, "LOOKUP_ROWS", 0)
    assert student_shape(prepared, prepared, shared, Clock(_student.LOOKUP_SECONDS), None, seed=0) == expected
    shape, start = student_shape(prepared, prepared, shared, Clock(), None, seed=0)
    assert (shape.lookup, start) == (True, None)


def test_a_resumed_fit_keeps_the_shape_that_it_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_student, "LOOKUP_ROWS", 0)
    prepared, path = table(), tmp_path / "distilled.json"
    shared = shared_of(prepared)
    first, _ = student_shape(prepared, prepared, shared, Clock(), path, seed=0)
    monkeypatch.setattr(_student, "lookup_shape", lambda *_, **__: pytest.fail("it was searched for again"))
    assert student_shape(prepared, prepared, shared, Clock(0.0), path, seed=0) == (first, None)
    path.unlink()
    kept = (shared.shape, shared.trained.best.joint_state)
    for clock in (Clock(0.0), Clock()):
        assert student_shape(prepared, prepared, shared, clock, path, seed=0) == kept


def test_the_edges_of_the_training_give_the_codes_of_the_shape() -> None:
    prepared = table()
    shape = lookup_shape(prepared, prepared, seed=0)
    numbers = prepared.features.numbers[prepared.split.train]
    for place, size in enumerate(shape.number_sizes):
        assert size == min(len(np.unique(numbers[~np.isnan(numbers[:, place]), place])), shape.num_bins + 1) + 2


def test_losses_are_brought_to_one_footing() -> None:
    prepared = table()
    losses = losses_of(shared_of(prepared), prepared)
    assert set(losses) == {task.name for task in prepared.tasks}
    taught = prepared.__class__(**{**vars(prepared), "tasks": [Taught(task) for task in prepared.tasks]})
    scales = {task.name: task.scale for task in evened(taught, losses | {"grade": 1e-9}).tasks}  # type: ignore[attr-defined]
    assert scales == losses | {"grade": _student.LEAST_LOSS}
    task = Regression("a", center=2.0, scale=3.0)
    targets = torch.from_numpy(pack(np.array([1.0, 2.0]), np.array([True, True]), None, task))
    outputs = torch.zeros(2, 1)
    torch.testing.assert_close(Taught(task, 0.25).loss(outputs, targets), 4 * Taught(task).loss(outputs, targets))
