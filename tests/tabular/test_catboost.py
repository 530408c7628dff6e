"""CatBoost as a candidate: every kind of target, bytes and back, time, and the way through a run directory."""

import json
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from small_tables import small_table

import motet
from motet import FitSettings, TabularModel
from motet._errors import MissingExtraError
from motet.report import write_report
from motet.serve import export_onnx
from motet.tabular import _catboost, _folds, _second_trees
from motet.tabular._boosting import BoostingRows
from motet.tabular._candidates import Candidates, Plan
from motet.tabular._prepared import prepare
from motet.tabular._second_trees import Cut, add_catboost, share_for
from motet.tasks import Binary, Count, Multiclass, Multilabel, Ordinal, Quantile, Regression
from motet.train import Clock

pytest.importorskip("catboost", reason="motet[catboost] is an extra")
GROWTH = _catboost.Growth(0.1, seed=0, threads=1)
DRAW = np.random.default_rng(0)
MATRIX = DRAW.normal(size=(240, 4)).astype(np.float32)
MATRIX[:, 3] = DRAW.integers(0, 5, 240)
MATRIX[::7, 0] = np.nan
SIGNAL = np.nan_to_num(MATRIX[:, 0]) + 0.5 * MATRIX[:, 3]
GRADES = np.digitize(SIGNAL, [0.3, 1.5])
KINDS = {
    "regression": (Regression("t", center=0.0, scale=1.0), SIGNAL),
    "binary": (Binary("t", classes=(False, True)), (SIGNAL > 1).astype(np.float64)),
    "multiclass": (Multiclass("t", classes=("a", "b", "c")), GRADES),
    "ordinal": (Ordinal("t", classes=("a", "b", "c")), GRADES),
    "count": (Count("t", scale=1.0), np.maximum(0.0, np.round(SIGNAL))),
    "quantile": (Quantile("t", levels=(0.2, 0.8), center=0.0, scale=1.0), SIGNAL),
    "multilabel": (
        Multilabel("t", labels=("x", "y")),
        np.stack([np.where(MATRIX[:, 1] > 2, np.nan, SIGNAL > 1), SIGNAL > 0.5], axis=1).astype(np.float64),
    ),
}


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(_catboost, "ROUNDS", 60)


def grow(kind: str, matrix: np.ndarray = MATRIX, clock: Clock | None = None) -> _catboost.CatBoostTrees:
    task, targets = KINDS[kind]
    parts = [BoostingRows(matrix[rows], targets[rows], 1) for rows in (slice(0, 160), slice(160, None))]
    return _catboost.CatBoostTrees.fit(task, *parts, growth=GROWTH, clock=clock or Clock(None))[0]


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_learned_and_comes_back_the_same(kind):
    task, targets = KINDS[kind]
    trees = grow(kind)
    found = trees.estimate(MATRIX)
    known = np.isfinite(targets).all(axis=1) if targets.ndim > 1 else np.ones(len(targets), dtype=bool)
    base = np.repeat(task.baseline(targets[:160][known[:160]]), known.sum(), axis=0)
    ours, constant = (float(task.score(one, targets[known])[0]) for one in (found[known], base))
    assert ours > constant if task.higher_is_better else ours < constant
    again = _catboost.CatBoostTrees.from_bytes(task, trees.to_bytes())
    np.testing.assert_array_equal(again.estimate(MATRIX), found)
    assert again.estimate(MATRIX[:0]).shape == found[:0].shape
    np.testing.assert_array_equal(again.estimate(MATRIX[5:6]), found[5:6])
    if kind in ("multiclass", "ordinal"):
        np.testing.assert_allclose(found.sum(axis=1), 1.0)
    if kind == "quantile":
        assert (np.diff(found, axis=1) >= 0).all()


def test_categories_are_no_numbers_and_unseen_ones_are_answered():
    shuffled = MATRIX.copy()
    shuffled[:, 3] = np.array([3, 0, 4, 1, 2])[MATRIX[:, 3].astype(int)]
    np.testing.assert_allclose(grow("regression", shuffled).estimate(shuffled), grow("regression").estimate(MATRIX))
    strange = MATRIX[:3].copy()
    strange[:, 3] = 99
    assert np.isfinite(grow("regression").estimate(strange)).all()


@pytest.mark.parametrize(("kind", "expected"), [("regression", [2.5]), ("multiclass", [0.0, 1.0, 0.0])])
def test_where_there_is_nothing_to_learn_a_constant_answers(kind, expected):
    task = KINDS[kind][0]
    value = 2.5 if kind == "regression" else 1
    rows = BoostingRows(MATRIX, np.full(len(MATRIX), value), 1)
    trees = _catboost.CatBoostTrees.fit(task, rows, rows, growth=GROWTH, clock=Clock(None))[0]
    again = _catboost.CatBoostTrees.from_bytes(task, trees.to_bytes())
    np.testing.assert_array_equal(again.estimate(MATRIX[:2]).reshape(2, -1), [expected] * 2)
    level = grow(kind, np.zeros_like(MATRIX)).estimate(MATRIX[:4])
    assert (level == level[0]).all()


def test_a_clock_that_has_run_out_ends_the_training(monkeypatch):
    monkeypatch.setattr(_catboost, "ROUNDS", 1_000_000)
    monkeypatch.setattr(_catboost, "PATIENCE", 1_000_000)
    begun = time.monotonic()
    grow("regression", clock=Clock(0.5))
    assert time.monotonic() - begun < 60  # unstopped for hours


def test_where_it_is_missing_the_message_names_the_target_and_what_to_install(monkeypatch):
    data = grow("regression").to_bytes()
    monkeypatch.setattr(_catboost, "is_installed", lambda: False)
    with pytest.raises(MissingExtraError, match=r"answer 't'.*not installed here.*pip install 'motet\[catboost\]'"):
        _catboost.CatBoostTrees.from_bytes(KINDS["regression"][0], data)


def plan(**more: object) -> Plan:
    return Plan("equal", "hard", None, 1, 0, 1, FitSettings(device="cpu").torch_device(), None, **more)


def table():
    return prepare(small_table(300), ["amount:regression", "bought:binary"], split="random", split_column=None,
                   roles={}, seed=0)  # fmt: skip


def test_time_is_kept_back_only_where_it_is_enough():
    prepared, wanted = table(), plan(catboost=True)
    assert share_for(prepared, prepared.tasks, plan(), 4, Clock(1000.0)) == 0.0
    assert share_for(prepared, prepared.tasks, wanted, 4, Clock(None)) == 0.0  # nothing needs to be kept back
    assert share_for(prepared, prepared.tasks, wanted, 4, Clock(4.0)) == _second_trees.SHARE
    assert 0.0 < share_for(prepared, prepared.tasks, wanted, 4, Clock(1000.0)) < 0.01  # no more than they will need
    assert share_for(prepared, prepared.tasks, wanted, 4, Clock(2.0)) == 0.0
    large = replace(prepared, split=replace(prepared.split, train=np.arange(300).repeat(100)))
    assert share_for(large, large.tasks, wanted, 4, Clock(1000.0)) == 0.0


def candidates(prepared, trees_ahead_on: str) -> Candidates:
    """Made-up estimates: LightGBM is right and the shared network wrong for one target, and the other way about."""
    split = prepared.split
    found = Candidates(np.concatenate([split.choose, split.test]))
    for name in ("own_lightgbm", "shared"):
        found.estimates[name] = {}
        for task in prepared.tasks:
            right = prepared.rows.targets[task.name].numpy()[found.rows]
            good = (task.name == trees_ahead_on) == (name == "own_lightgbm")
            found.estimates[name][task.name] = np.nan_to_num(right) if good else np.full(len(right), 0.5)
    return found


@pytest.mark.parametrize("first", ["amount", "bought"])
def test_without_time_for_all_the_targets_that_trees_suit_come_first(first, monkeypatch):
    monkeypatch.setattr(_second_trees, "START", 100.0)
    monkeypatch.setattr(_second_trees, "HOPELESS", -np.inf)
    prepared = table()
    found = candidates(prepared, first)
    cut = Cut(prepared, plan(catboost=True), found)
    add_catboost([cut], clock=Clock(150.0), emit=lambda record: None)
    assert list(found.catboost) == list(found.estimates["own_catboost"]) == [first]
    assert len(found.estimates["own_catboost"][first]) == len(found.rows)
    assert "1 of 2 targets; a longer time limit" in " ".join(found.notes)
    assert [trial["task"] for trial in found.trials] == [first]


@pytest.mark.parametrize("suited", ["amount", "bought"])
def test_targets_that_trees_are_far_behind_on_are_not_tried(suited):
    prepared = table()
    found = candidates(prepared, suited)
    add_catboost([Cut(prepared, plan(catboost=True), found)], clock=Clock(150.0), emit=lambda record: None)
    assert list(found.catboost) == [suited]
    assert not found.notes


def test_without_time_or_wish_there_is_no_candidate():
    prepared = table()
    for asked, clock in ((plan(catboost=True), Clock(0.0)), (plan(), Clock(None))):
        found = candidates(prepared, "amount")
        add_catboost([Cut(prepared, asked, found)], clock=clock, emit=lambda record: None)
        assert found.judged == ("shared", "own_lightgbm")
        assert not found.trials


TABLE = small_table(240)


def fit(out, **more: object) -> TabularModel:
    settings = FitSettings(deploy="best", max_epochs=2, threads=1, resamples=100, **more)
    return TabularModel(["amount:regression", "bought:binary"], settings=settings).fit(TABLE, out=out)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_folds, "PIECES", 3)
        patch.setattr(_catboost, "ROUNDS", 60)
        patch.setattr("motet.tabular._trials.ARCHITECTURES", ("hard",))
        patch.setattr(_folds, "choose_penalties", lambda *_, **__: None)  # no linear model, which would serve here
        return SimpleNamespace(model=fit(out), path=out)


def test_it_is_trained_on_every_cut_tried_served_and_saved(run):
    model = run.model
    assert model.metrics_["seconds"]["own_catboost"] > 0
    tried = [one for one in model.metrics_["trials"] if one["candidate"] == "own_catboost"]
    assert sorted(one["task"] for one in tried) == ["amount", "bought"]
    assert all(one["kept"] and one["name"] == "rate 0.05" for one in tried)
    assert all("own_catboost" in found["candidates"] for found in model.metrics_["tasks"].values())
    # The signal is smooth and the networks have had two epochs: CatBoost is the better kind of tree here.
    assert "own_catboost" in model.served_.answers["amount"].shares
    assert [list(fold.catboost) for fold in model.served_.folds] == [list(model.served_.catboost)] * 3
    assert "catboost" in model.run_["versions"]
    again = motet.load(run.path)
    assert again.predict(TABLE, intervals=True).equals(model.predict(TABLE, intervals=True))
    size = (run.path / "model.safetensors").stat().st_size
    assert 0.9 < model.metrics_["artefact"]["bytes"] / size <= 1.0
    assert not list(run.path.rglob("*.pkl"))


def test_the_report_names_it(run):
    page = write_report(run.path).read_text()
    assert "own CatBoost" in page


def test_the_run_says_what_is_missing_and_has_no_graph(run, monkeypatch, tmp_path):
    with pytest.raises(motet.RequestError, match=r"'amount' \(.*own_catboost.*\).*catboost=False"):
        export_onnx(run.path, tmp_path / "graph", tasks=["amount"])
    monkeypatch.setattr(_catboost, "is_installed", lambda: False)
    with pytest.raises(MissingExtraError, match=r"answer '.*pip install 'motet\[catboost\]'"):
        motet.load(run.path)


def test_a_fit_without_it_says_nothing_of_it(monkeypatch, tmp_path):
    monkeypatch.setattr(_folds, "PIECES", 0)
    model = fit(tmp_path / "run", catboost=False)
    assert "own_catboost" not in json.dumps(model.metrics_)
    assert "catboost" not in model.run_["versions"]
