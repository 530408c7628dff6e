"""The loop: it learns, it keeps its word about time, stopping, missing labels and resuming."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from motet.balance import from_name, methods
from motet.data import Features, TableRows
from motet.models import HardSharing, MultiTaskModel, TabularEncoder, bin_edges
from motet.tasks import Binary, Regression
from motet.train import Best, Clock, LoopSettings, Trained, Trainer, estimate, skill

NUM_ROWS = 600
EPOCHS = 15


def table(*, rare: float = 1.0) -> TableRows:
    generator = np.random.default_rng(3)
    numbers = generator.normal(size=(NUM_ROWS, 4)).astype(np.float32)
    categories = generator.integers(0, 3, size=(NUM_ROWS, 1)).astype(np.int32)
    price = (10 + 3 * numbers[:, 0] + categories[:, 0]).astype(np.float32)
    sold = (numbers[:, 0] + numbers[:, 1] > 0).astype(np.float32)
    present = {"price": np.ones(NUM_ROWS, dtype=bool), "sold": generator.random(NUM_ROWS) < rare}
    return TableRows(Features(numbers, categories), {"price": price, "sold": sold * present["sold"]}, present)


def network(rows: TableRows) -> MultiTaskModel:
    torch.manual_seed(0)
    tasks = [Regression("price", center=11.0, scale=3.2), Binary("sold", classes=(False, True))]
    encoder = TabularEncoder(bin_edges(rows.inputs["numbers"].numpy(), num_bins=8), [3], width=16, dropout=0.1)
    return MultiTaskModel(encoder, HardSharing(2, width=16), tasks, head_width=8)


def train(
    rows: TableRows, *, clock: Clock | None = None, balance: str = "equal", **options: object
) -> tuple[MultiTaskModel, Trained, list]:
    model, records = network(rows), []
    settings = LoopSettings(**{"max_epochs": EPOCHS, "batch_size": 64, "warmup_steps": 5, **options.pop("loop", {})})
    emit = options.pop("emit", None) or records.append
    trainer = Trainer(
        model,
        rows,
        settings,
        balancer=from_name(balance),
        stage="shared",
        emit=emit,
        checkpoint=options.pop("checkpoint", None),
    )
    trained = trainer.fit(np.arange(400), np.arange(400, NUM_ROWS), clock=clock or Clock(), **options)
    return model, trained, records


@pytest.mark.parametrize("balance", ["equal", "uncertainty", "random"])
def test_it_learns_both_tasks(balance: str) -> None:
    _, trained, records = train(table(), balance=balance)
    assert trained.best.scores["price"] < 0.6 * trained.best.constants["price"]
    assert trained.best.scores["sold"] > 0.8
    assert trained.ended == "epochs"
    assert trained.cost.rows == EPOCHS * 400
    evaluations = [record for record in records if record["event"] == "evaluate"]
    assert evaluations[-1]["epoch"] == EPOCHS
    assert set(evaluations[0]["losses"]) == {"price", "sold"}
    json.dumps(records, allow_nan=False)


def test_same_seed_same_weights_and_other_seed_others() -> None:
    states = [train(table(), loop={"seed": seed})[1].best.joint_state for seed in (0, 0, 1)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert any(not torch.equal(states[0][name], states[2][name]) for name in states[0])


def test_the_global_random_state_is_left_alone() -> None:
    rows = table()
    model = network(rows)
    before = torch.get_rng_state()
    settings = LoopSettings(max_epochs=1, batch_size=64)
    trainer = Trainer(model, rows, settings, balancer=from_name("equal"), stage="s", emit=lambda _: None)
    trainer.fit(np.arange(400), np.arange(400, NUM_ROWS), clock=Clock())
    assert torch.equal(before, torch.get_rng_state())


def test_batches_without_a_task_are_legal() -> None:
    _, trained, records = train(table(rare=0.01))
    assert np.isfinite(trained.best.scores["price"])
    assert (
        any("sold" not in record["losses"] for record in records if record["event"] == "evaluate") or trained.epochs > 0
    )
    assert all(
        np.isfinite(list(record["losses"].values())).all() for record in records if record["event"] == "evaluate"
    )


def test_a_task_without_any_stop_label_scores_null() -> None:
    rows = table()
    rows.present["sold"][400:] = False
    _, trained, records = train(rows)
    assert records[-2]["scores"]["sold"] is None or records[-1].get("scores", {}).get("sold") is None
    assert set(trained.best.states) == {"price", "sold"}


def test_rows_without_any_label_are_never_drawn() -> None:
    rows = table()
    for present in rows.present.values():
        present[:100] = False
    assert train(rows)[1].cost.rows == EPOCHS * 300


def test_max_rows_bounds_the_compute() -> None:
    assert train(table(), max_rows=1000)[1].cost.rows <= 1000


def test_the_time_limit_is_kept_and_the_learning_rate_comes_down() -> None:
    clock = Clock(0.5)
    _, trained, _ = train(table(), clock=clock, loop={"max_epochs": 100_000, "patience": 10**9})
    assert trained.ended == "time"
    assert 0.4 < trained.cost.seconds < 1.5


def test_patience_ends_training() -> None:
    rows = table()
    generator = np.random.default_rng(0)
    rows.targets["price"] = torch.from_numpy(generator.normal(size=NUM_ROWS).astype(np.float32))
    rows.targets["sold"] = torch.from_numpy(generator.integers(0, 2, NUM_ROWS).astype(np.float32))
    _, trained, _ = train(rows, loop={"max_epochs": 500, "patience": 3})
    assert trained.ended == "patience"
    assert trained.epochs < 400


@pytest.mark.parametrize("balance", ["equal", "uncertainty", "random"])
def test_a_killed_training_goes_on_to_the_same_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, balance: str
) -> None:
    monkeypatch.setattr("motet.train._checkpoint.SECONDS_BETWEEN", 0.0)
    whole = train(table(), balance=balance)[1]
    counter, path = itertools.count(), tmp_path / "shared.safetensors"

    def kill(record: dict) -> None:
        if record["event"] == "evaluate" and next(counter) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(table(), balance=balance, emit=kill, checkpoint=path)
    resumed = train(table(), balance=balance, checkpoint=path)[1]
    assert resumed.best.scores == whole.best.scores
    assert resumed.cost.rows == whole.cost.rows
    assert all(torch.equal(resumed.best.joint_state[name], value) for name, value in whole.best.joint_state.items())


def test_best_keeps_each_tasks_own_state() -> None:
    tasks = [Regression("low", center=0.0, scale=1.0), Binary("high", classes=(0, 1))]
    best = Best(tasks, {"low": 2.0, "high": 0.5}, patience=2)
    states = [{"w": torch.tensor(float(number))} for number in range(4)]
    assert best.update({"low": 1.0, "high": 0.6}, states[0]) == ["low", "high"]
    assert best.update({"low": 0.5, "high": 0.55}, states[1]) == ["low"]
    assert best.update({"low": 0.6, "high": 0.9}, states[2]) == ["high"]
    assert best.states["low"] is states[1]
    assert best.states["high"] is states[2]
    assert best.joint_state is states[2]
    assert not best.done
    for _ in range(2):
        best.update({"low": 0.9, "high": 0.7}, states[3])
    assert best.done
    assert best.joint_state is states[2]


def test_skill_by_hand() -> None:
    low, high = Regression("low", center=0.0, scale=1.0), Binary("high", classes=(0, 1))
    assert skill(low, 0.5, 2.0) == 0.75
    assert skill(high, 0.75, 0.5) == 0.5
    assert skill(high, 0.4, 0.5) == pytest.approx(-0.2)
    assert np.isnan(skill(high, float("nan"), 0.5))
    assert np.isnan(skill(low, 0.0, 0.0))


def test_estimate_gives_one_row_per_row_whatever_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = table()
    model = network(rows)
    whole = estimate(model, rows, np.arange(50))
    monkeypatch.setattr("motet.train._scores.ROWS_AT_ONCE", 7)
    parts = estimate(model, rows, np.arange(50))
    for name, values in whole.items():
        np.testing.assert_allclose(parts[name], values, rtol=1e-5)
    assert len(estimate(model, rows, np.arange(0))["price"]) == 0


def test_gradient_cosines_are_logged() -> None:
    _, _, records = train(table())
    conflicts = [record for record in records if record["event"] == "conflict"]
    assert conflicts[0]["tasks"] == ["price", "sold"]
    assert conflicts[0]["cosines"][0][0] == pytest.approx(1.0)
    assert conflicts[0]["cosines"][0][1] == conflicts[0]["cosines"][1][0]


@pytest.mark.parametrize("balance", sorted(methods()))
def test_every_method_trains_through_missing_labels(balance: str) -> None:
    _, trained, _ = train(table(rare=0.5), balance=balance, loop={"max_epochs": 3})
    assert np.isfinite(list(trained.best.scores.values())).all()
    assert trained.best.scores["price"] < 1.2 * trained.best.constants["price"]
