"""What the log says of gradients: every task, every layer, within its time, and nothing of the training changes."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from motet.balance import EqualWeighting
from motet.data import Batch, Features, TableRows
from motet.models import HardSharing, MultiTaskModel
from motet.tasks import Regression
from motet.train import Clock, LoopSettings, Trainer
from motet.train._conflicts import MOST_TASKS, SHARE, ConflictLog

NUM_ROWS = 24


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 8), nn.Linear(8, 8)
        self.dropout = nn.Dropout(0.5)  # whose random numbers an observation must not draw

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.second(self.dropout(torch.relu(self.first(inputs["numbers"]))))


def model_of(num_tasks: int) -> MultiTaskModel:
    torch.manual_seed(0)
    tasks = [Regression(f"t{k}", center=0.0, scale=1.0) for k in range(num_tasks)]
    return MultiTaskModel(Encoder(), HardSharing(num_tasks, width=8), tasks, head_width=4)


def table(num_tasks: int) -> TableRows:
    generator = np.random.default_rng(0)
    numbers = generator.normal(size=(NUM_ROWS, 3)).astype(np.float32)
    targets = {f"t{k}": generator.normal(size=NUM_ROWS).astype(np.float32) for k in range(num_tasks)}
    present = {name: np.ones(NUM_ROWS, dtype=bool) for name in targets}
    return TableRows(Features(numbers, np.zeros((NUM_ROWS, 0), dtype=np.int32)), targets, present)


def batch_of(num_tasks: int) -> Batch:
    return table(num_tasks).take(np.arange(NUM_ROWS))


def looked(model: MultiTaskModel, num_looks: int = 1) -> tuple[ConflictLog, list[dict]]:
    records: list[dict] = []
    log = ConflictLog(model, stage="shared", emit=records.append, seed=0)
    for step in range(num_looks):
        log.look(batch_of(len(model.tasks)), step)
    return log, records


def test_an_observation_is_two_records_and_leaves_no_gradient() -> None:
    model = model_of(3)
    random = torch.get_rng_state()
    _, [conflict, diagnosis] = looked(model)
    assert torch.equal(random, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert set(conflict) == {"event", "stage", "step", "tasks", "cosines", "norms"}
    assert (conflict["event"], diagnosis["event"]) == ("conflict", "diagnosis")
    assert conflict["tasks"] == diagnosis["tasks"] == ["t0", "t1", "t2"]
    assert [entry["layer"] for entry in diagnosis["layers"]] == ["first", "second"]
    squares = np.square([entry["norms"] for entry in diagnosis["layers"]]).sum(axis=0)
    np.testing.assert_allclose(np.sqrt(squares), conflict["norms"], rtol=1e-4)
    json.dumps([conflict, diagnosis], allow_nan=False)


def test_of_many_tasks_all_are_compared_at_the_features_and_some_by_layer() -> None:
    names = [f"t{k}" for k in range(MOST_TASKS + 4)]
    _, records = looked(model_of(len(names)), num_looks=2)
    conflicts, diagnoses = records[::2], records[1::2]
    assert all(record["tasks"] == names for record in conflicts)
    assert np.shape(conflicts[0]["cosines"]) == (len(names), len(names))
    assert all(len(record["tasks"]) == MOST_TASKS for record in diagnoses)
    assert {name for record in diagnoses for name in record["tasks"]} == set(names)
    json.dumps(records, allow_nan=False)


def test_it_keeps_within_its_share_of_the_time() -> None:
    log, _ = looked(model_of(2), num_looks=0)
    assert log.is_due(0.0)
    log.spent, log.last = 2.0, 0.5
    assert not log.is_due(2.4 / SHARE)
    assert log.is_due(2.6 / SHARE)
    log.look(batch_of(2), 0)
    assert log.spent == 2.0 + log.last > 2.0


def test_where_nothing_is_shared_nothing_is_logged() -> None:
    alone, frozen = model_of(1), model_of(2)
    frozen.encoder.requires_grad_(False)
    assert not ConflictLog(alone, stage="s", emit=print, seed=0).is_due(1e9)
    assert not ConflictLog(frozen, stage="s", emit=print, seed=0).is_due(1e9)


def test_a_batch_with_one_labelled_task_is_passed_over() -> None:
    records: list[dict] = []
    log = ConflictLog(model_of(2), stage="s", emit=records.append, seed=0)
    rows = table(2)
    rows.present["t1"][:] = False
    log.look(rows.take(np.arange(NUM_ROWS)), 0)
    assert records == []


def test_the_weights_are_the_same_with_and_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def weights() -> tuple[list[torch.Tensor], int]:
        model, records = model_of(2), []
        settings = LoopSettings(max_epochs=6, batch_size=8, warmup_steps=1)
        trainer = Trainer(model, table(2), settings, balancer=EqualWeighting(), stage="s", emit=records.append)
        trainer.fit(np.arange(16), np.arange(16, NUM_ROWS), clock=Clock())
        return list(model.state_dict().values()), sum(record["event"] == "diagnosis" for record in records)

    watched, num_watched = weights()
    monkeypatch.setattr(ConflictLog, "is_due", lambda *_: False)
    alone, num_alone = weights()
    assert (num_watched > 0, num_alone) == (True, 0)
    assert all(torch.equal(a, b) for a, b in zip(watched, alone, strict=True))
