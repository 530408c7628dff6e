"""Linear models: their solutions by hand, the choice of their penalties, and the way through a run and its graph."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from small_tables import small_table

import motet
from motet import FitSettings, TabularModel
from motet.data import TableRows
from motet.models import PlainEncoder
from motet.report import write_report
from motet.tabular import _linear
from motet.tabular._linear import STRENGTHS, Penalty, choose_penalties, fit_linear
from motet.tabular._network import network_estimates
from motet.tabular._prepared import Prepared, prepare
from motet.train import Clock

KINDS = ("amount:regression", "bought:binary", "grade:multiclass", "visits:count")


def table(num_rows: int = 400) -> pl.DataFrame:
    frame = small_table(num_rows)
    rate = np.exp(0.5 * frame["n0"].to_numpy())
    return frame.with_columns(pl.Series("visits", np.random.default_rng(1).poisson(rate)))


def prepared(frame: pl.DataFrame | None = None) -> Prepared:
    return prepare(table() if frame is None else frame, KINDS, split="random", split_column=None, roles={}, seed=0)


def design(made: Prepared) -> np.ndarray:
    encoder = PlainEncoder(len(made.encoder.number_names), made.encoder.category_sizes)
    encoder.standardise(torch.from_numpy(made.features.numbers[made.split.train]))
    return encoder(made.rows.take(made.split.train).inputs).double().numpy()


@pytest.mark.parametrize("strength", [10.0, 0.1, 0.001])
def test_a_numbers_model_is_ridge_regression(strength):
    made = prepared()
    network = fit_linear(made, dict.fromkeys([task.name for task in made.tasks], Penalty(1, strength)))
    task = made.tasks[0]
    targets, present = made.targets(task, made.split.train)
    rows, wanted = design(made)[present], (targets - task.center) / task.scale
    rows_1 = np.column_stack([rows, np.ones(len(rows))])
    penalty = strength * len(rows) * np.diag([*np.ones(rows.shape[1]), 0.0])
    expected = np.linalg.solve(rows_1.T @ rows_1 + penalty, rows_1.T @ wanted)
    state = network.states[task.name]
    found = np.append(state["heads.weight_out"][0, :, 0].numpy(), state["heads.bias_out"][0, 0, 0].numpy())
    # What it answers, in standard deviations; weights of levels that always come together may differ more.
    np.testing.assert_allclose(rows_1 @ found, rows_1 @ expected, atol=5e-3)


@pytest.mark.parametrize("place", [1, 2, 3])
def test_other_kinds_are_at_the_bottom_of_their_own_loss(place):
    made, strength = prepared(), 0.01
    network = fit_linear(made, dict.fromkeys([task.name for task in made.tasks], Penalty(1, strength)))
    task, state = made.tasks[place], network.states[made.tasks[place].name]
    weights = state["heads.weight_out"][place, :, : task.num_outputs].double().requires_grad_()
    biases = state["heads.bias_out"][place, :, : task.num_outputs].double().requires_grad_()
    rows = made.rows.take(made.split.train)
    outputs = torch.from_numpy(design(made)) @ weights + biases
    loss = task.masked_loss(outputs, rows.targets[task.name], rows.present[task.name])
    (loss + 0.5 * strength * weights.square().sum()).backward()
    assert max(weights.grad.abs().max(), biases.grad.abs().max()) < 2e-3
    assert weights.abs().max() > 0.1


def test_noise_is_penalised_and_a_line_is_not():
    frame = table(600)
    draw = np.random.default_rng(5)
    line = 3 * frame["n0"].to_numpy() - frame["n1"].to_numpy()
    noise = {"amount": line, "visits": draw.poisson(2.0, 600), "bought": draw.random(600) > 0.5}
    made = prepared(frame.with_columns(**{name: pl.Series(values) for name, values in noise.items()}))
    found = choose_penalties(made, seed=0, clock=Clock(None))
    assert found["amount"].strength <= 0.003
    assert found["visits"].strength >= found["amount"].strength
    assert found["visits"].order == 1
    short = choose_penalties(made, seed=0, clock=Clock(0.0))
    assert set(short.values()) == {Penalty(1, STRENGTHS[0])}  # one is always tried


def test_choose_and_test_rows_say_nothing():
    made = prepared()
    hidden = np.concatenate([made.split.choose, made.split.test])
    targets = {name: values.numpy().copy() for name, values in made.rows.targets.items()}
    for values in targets.values():
        values[hidden] = values[hidden][::-1]
    present = {name: values.numpy() for name, values in made.rows.present.items()}
    other = replace(made, rows=TableRows(made.features, targets, present))
    penalties = choose_penalties(made, seed=0, clock=Clock(None))
    assert choose_penalties(other, seed=0, clock=Clock(None)) == penalties
    one, again = (fit_linear(each, penalties).states["amount"] for each in (made, other))
    assert all(torch.equal(one[name], again[name]) for name in one)


@pytest.mark.parametrize("kind", ["regression", "binary", "count"])
def test_labels_that_one_piece_has_alone_are_no_error(kind):
    frame = table(200)
    found = frame["visits"].to_numpy() if kind == "count" else frame["n0"].to_numpy()
    few = pl.Series(found > 0 if kind == "binary" else found)
    first = prepare(frame.with_columns(few=few), [f"few:{kind}", "amount"], split="random", split_column=None, roles={},
                    seed=0)  # fmt: skip
    kept = np.zeros(200, dtype=bool)
    kept[first.split.train[:6]] = True
    gone = pl.when(pl.Series(kept)).then(few).otherwise(None)
    made = prepare(frame.with_columns(few=gone), [f"few:{kind}", "amount"], split="random", split_column=None, roles={},
                   seed=0)  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_linear, "pieces_of", lambda _, rows, number, __: np.isin(rows, first.split.train[:6]) * 1)
        patch.setattr(_linear, "PIECES", 2)
        penalties = choose_penalties(made, seed=0, clock=Clock(None))
    estimates = network_estimates(fit_linear(made, penalties), made, made.split.test)
    assert all(np.isfinite(part).all() for part in estimates.values())


def test_a_table_too_large_for_it_has_none(monkeypatch):
    for limit in ("MOST_FEATURES", "MOST_NUMBERS"):
        with monkeypatch.context() as patch:
            patch.setattr(_linear, limit, 5)
            assert choose_penalties(prepared(), seed=0, clock=Clock(None)) is None


def series() -> pl.DataFrame:
    """A slow wave on a slope that the test rows, a later time, have climbed further than any before."""
    draw, time = np.random.default_rng(0), np.arange(900)
    slope = time / 300 + np.sin(time / 40)
    parts = np.where(time < 550, "train", np.where(time < 700, "validation", "test"))
    return pl.DataFrame({
        "now": slope + 0.02 * draw.normal(size=900), "noise": draw.normal(size=900), "part": parts,
        "later": 2 * slope + 0.05 * draw.normal(size=900), "wave": 1 - slope + 0.05 * draw.normal(size=900),
    })  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    settings = FitSettings(deploy="best", max_epochs=2, threads=1, resamples=100, catboost=False)
    out = tmp_path_factory.mktemp("run") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("motet.tabular._trials.ARCHITECTURES", ("hard",))
        model = TabularModel(["later:regression", "wave:regression"], split_column="part", settings=settings)
        return model.fit(series(), out=out), out


def test_a_line_serves_what_goes_on_beyond_the_training_rows(run):
    model, out = run
    for found in model.metrics_["tasks"].values():
        assert found["served_by"] in ("own_linear", "blend")
        scores = found["candidates"]
        assert scores["own_linear"]["score"] < 0.2 * scores["own_lightgbm"]["score"]
        assert found["guard"]["own"] == "own_linear"
    assert model.metrics_["seconds"]["own_linear"] > 0
    assert "own linear model" in write_report(out).read_text(encoding="utf-8")


def test_it_is_saved_and_read_and_one_graph_says_the_same(run, tmp_path):
    pytest.importorskip("onnxruntime")
    from motet.serve import export_onnx

    model, out = run
    frame = series().tail(200)
    assert motet.load(out).predict(frame).equals(model.predict(frame))
    differences = export_onnx(out, tmp_path / "graph", table=frame).document["check"]
    assert max(differences["largest_difference"].values()) < 1e-4


def test_products_are_for_targets_that_need_them():
    frame = table(600)
    numbers = [frame[name].to_numpy() for name in ("n0", "n1", "n2")]
    curved = {"amount": 2 * numbers[0] * numbers[1] + numbers[2] ** 2, "visits": np.arange(600) % 4}
    made = prepared(frame.with_columns(**{name: pl.Series(values) for name, values in curved.items()}))
    found = choose_penalties(made, seed=0, clock=Clock(None))
    assert found["amount"].order == 2
    penalties = found | {"visits": Penalty(1, 1.0)}
    network = fit_linear(made, penalties)
    plain = network.shape.build(made.tasks).encoder.num_plain
    weights = network.states["amount"]["heads.weight_out"]
    assert not weights[3, plain:].any()
    assert weights[0, plain:].any()
    assert weights[3, :plain].any()
    estimates = network_estimates(network, made, made.split.test)["amount"]
    targets, present = made.targets(made.tasks[0], made.split.test)
    assert np.corrcoef(estimates[present], targets)[0, 1] > 0.99


@pytest.mark.parametrize("order", [1, 2])
def test_its_estimates_are_those_of_its_state(order):
    made = prepared()
    penalties = dict.fromkeys([task.name for task in made.tasks], Penalty(order, 0.1))
    found = network_estimates(fit_linear(made, penalties), made, made.split.test)
    assert {name: values.shape for name, values in found.items()}["grade"] == (len(made.split.test), 3)
    np.testing.assert_allclose(found["grade"].sum(axis=1), 1.0, atol=1e-6)
