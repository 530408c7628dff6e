"""Folds of a small table: who is left out when, what is joined, and the way through a run directory."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from small_tables import small_table

import motet
from motet import FitSettings, TabularModel
from motet.tabular import _folds
from motet.tabular._boosting import NARROW, WIDE
from motet.tabular._candidates import Candidates, best_ways
from motet.tabular._folds import _fewer, _fitting, _joined, _pieces, splits_of
from motet.tabular._guard import HeldOut
from motet.tabular._judge import Judge
from motet.tabular._own_trees import Grown
from motet.tabular._prepared import Prepared, prepare
from motet.tasks import Binary, Regression
from motet.train import Clock, Cost

SETTINGS = FitSettings(deploy="best", max_epochs=2, threads=1, resamples=100)


def prepared(frame: pl.DataFrame, how: str = "random", column: str | None = None) -> Prepared:
    return prepare(frame, ["amount:regression", "bought:binary"], split=how, split_column=column, roles={}, seed=0)


def grouped() -> pl.DataFrame:
    return small_table(600).with_columns(pl.Series("house", np.random.default_rng(0).integers(0, 90, 600)))


@pytest.mark.parametrize(
    ("frame", "how", "column"), [(small_table(300), "random", None), (grouped(), "group", "house")]
)
def test_every_row_is_left_out_once_and_never_learned_then(frame, how, column):
    table = prepared(frame, how, column)
    splits = splits_of(table, 5, seed=3)
    assert len(splits) == 6
    assert splits[0] is table.split
    left_out = np.sort(np.concatenate([split.choose for split in splits]))
    np.testing.assert_array_equal(left_out, np.setdiff1d(np.arange(frame.height), table.split.test))
    for split in splits:
        seen = np.concatenate([split.train, split.stop])
        assert not np.isin(split.choose, seen).any()
        assert not np.isin(split.test, np.concatenate([seen, split.choose])).any()
        if table.groups is not None:
            assert not set(table.groups[split.choose]) & set(table.groups[seen])


@pytest.mark.parametrize(("scattered", "expected"), [(True, False), (False, True)])
def test_pieces_are_stretches_where_the_test_rows_are(scattered, expected):
    words = np.array(["train"] * 200 + ["validation"] * 40 + ["test"] * 60)
    words = np.random.default_rng(0).permutation(words) if scattered else words
    frame = small_table(300).with_columns(pl.Series("part", words))
    for split in splits_of(prepared(frame, "given", "part"), 4, seed=0)[1:]:
        between = np.isin(np.arange(split.choose.min(), split.choose.max()), split.train)
        assert between.any() != expected


def test_a_first_cut_that_took_too_long_leaves_fewer():
    assert _fitting(Clock(None), 100.0) == 8
    assert _fitting(Clock(100.0), 19.0) == 6
    assert _fitting(Clock(100.0), 50.0) == 2


@pytest.mark.parametrize(
    ("ended", "epochs", "network_leads", "expected"),
    [("time", 10.0, True, 3), ("time", 15.0, True, 5), ("time", 40.0, True, 8), ("patience", 5.0, True, 8),
     ("time", 5.0, False, 8)],
)  # fmt: skip
def test_cuts_are_fewer_where_a_network_that_leads_had_no_time(ended, epochs, network_leads, expected):
    table = prepared(small_table(300))
    found = Candidates(np.concatenate([table.split.choose, table.split.test]))
    found.networks[""] = SimpleNamespace(trained=SimpleNamespace(ended=ended, epochs=epochs))
    for name, right in (("shared", network_leads), ("own_lightgbm", not network_leads)):
        truth = {task.name: np.nan_to_num(table.rows.targets[task.name].numpy()[found.rows]) for task in table.tasks}
        found.estimates[name] = truth if right else {task: np.full(len(values), 0.5) for task, values in truth.items()}
    assert _fewer(8, table, found) == expected


def test_folds_are_for_small_tables_with_time_that_no_time_orders():
    table = prepared(small_table(300))
    assert _pieces(table, Clock(None)) == 8
    assert _pieces(table, Clock(6.0)) == 4
    many = replace(table, tasks=table.tasks * 20)
    assert _pieces(many, Clock(6.0)) == 0  # more targets need more time a cut
    assert _pieces(many, Clock(20.0)) > 3
    assert _pieces(table, Clock(3.0)) == 0
    assert _pieces(replace(table, order=np.arange(300)), Clock(None)) == 0
    large = replace(table.split, train=np.arange(30_000))
    assert _pieces(replace(table, split=large), Clock(None)) == 0


def test_each_row_is_answered_by_the_cut_that_left_it_out():
    table = prepared(small_table(300))
    splits = splits_of(table, 3, seed=0)
    parts = []
    for number, split in enumerate(splits):
        part = Candidates(np.concatenate([split.choose, split.test]), costs={"shared": Cost(1.0, 1.0, 10)})
        part.estimates["shared"] = {"amount": np.r_[split.choose + 1000.0 * number, np.full(len(split.test), number)]}
        parts.append(part)
    joined = _joined(table, splits, parts)
    fold_of = {row: number for number, split in enumerate(splits) for row in split.choose.tolist()}
    num_test = len(table.split.test)
    found = joined.estimates["shared"]["amount"]
    chosen = joined.rows[:-num_test]
    np.testing.assert_array_equal(found[:-num_test], [row + 1000.0 * fold_of[row] for row in chosen.tolist()])
    np.testing.assert_allclose(found[-num_test:], 1.5)  # the mean of 0, 1, 2 and 3
    assert joined.costs["shared"].rows == 40
    assert (np.diff(chosen) > 0).all()


def grown(task: str, settings, score: float | None) -> Grown:
    return Grown(Binary(task), settings, None, Cost(), score, np.zeros(1))


def test_one_tasks_luck_does_not_choose_its_trees_alone():
    # c alone would stay wide by .01; a and b gain .1 and .09 by narrow trees.
    scores = {"a": (0.5, 0.55), "b": (0.5, 0.545), "c": (0.5, 0.495), "d": (0.5, 0.4)}
    jobs = [grown(name, way, pair[place]) for place, way in enumerate((WIDE, NARROW)) for name, pair in scores.items()]
    found = {one.task.name: one.settings.name for one in best_ways(jobs)}
    mean = np.mean([0.1, 0.09, -0.01, -0.2])
    assert mean < 0
    assert found == {"a": "narrow", "b": "narrow", "c": "wide", "d": "wide"}
    jobs = [one for one in jobs if one.task.name != "d"]
    assert {one.task.name: one.settings.name for one in best_ways(jobs)}["c"] == "narrow"


def test_a_score_that_is_not_known_chooses_nothing():
    assert [one.settings for one in best_ways([grown("a", WIDE, None), grown("a", NARROW, 0.9)])] == [WIDE]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


TABLE = small_table(240)


def fit(**more) -> TabularModel:
    """In three pieces, for the time's sake."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_folds, "PIECES", 3)
        return TabularModel(["amount:regression", "bought:binary"], settings=SETTINGS).fit(TABLE, **more)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> TabularModel:
    return fit(out=tmp_path_factory.mktemp("run") / "run")


def test_what_serves_is_what_was_measured(whole, tmp_path):
    again = motet.load(whole.save(tmp_path / "again"))
    assert again.predict(TABLE, intervals=True).equals(whole.predict(TABLE, intervals=True))
    assert len(again.served_.folds) == 3
    table = prepare(TABLE, whole.targets, split="random", split_column=None, roles={}, seed=0)
    scores = again.score(TABLE[table.split.test])
    for name, found in whole.metrics_["tasks"].items():
        assert scores[name] == pytest.approx(found["motet"], rel=1e-4)
    rows = whole.metrics_["rows"]
    assert rows["choose"] == rows["train"] == 240 - rows["test"]
    assert "4 cuts" in " ".join(whole.run_["notes"])


def test_the_document_says_what_was_tried(whole):
    trials = whole.metrics_["trials"]
    ways = {(one["task"], one["name"]) for one in trials if one["candidate"] == "own_lightgbm"}
    assert ways == {(task, name) for task in ("amount", "bought") for name in ("medium", "narrow")}
    assert {"hard", "mmoe", "ple", "home"} <= {one["name"] for one in trials if one["candidate"] == "shared"}
    assert all(one["seconds"] > 0 for one in trials)


class Stops:
    """A display that presses Ctrl-C when a stage begins."""

    def __init__(self, stage: str) -> None:
        self.stage = stage

    def __call__(self, record):
        if record["event"] == "stage" and record["stage"] == self.stage:
            raise KeyboardInterrupt

    def close(self):
        pass


@pytest.mark.slow
def test_a_fit_that_was_interrupted_between_cuts_goes_on(whole, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        fit(out=out, display=Stops("fold-2"))
    journal = [json.loads(line) for line in (out / "work" / "trials.jsonl").read_text().splitlines()]
    model = fit(out=out, resume=True)
    kept = [one for one in model.metrics_["trials"] if one["candidate"] == "shared"]
    assert [{**one, "kept": None} for one in kept] == [{**one, "kept": None} for one in journal]
    assert model.metrics_["tasks"] == whole.metrics_["tasks"]
    assert model.predict(TABLE).equals(whole.predict(TABLE))


@pytest.mark.parametrize(
    ("error", "blocks", "has_cuts", "expected"),
    [(0.90, 5, True, True), (0.97, 5, True, False), (1.1, 5, True, False), (0.5, None, True, False),
     (0.5, 5, False, False)],
)  # fmt: skip
def test_an_own_model_stands_in_a_series_where_it_clearly_leads(error, blocks, has_cuts, expected):
    """Where blocks are few; rows that stand for themselves must prove it, and one cut's rows are too few."""
    wrong = np.random.default_rng(0).normal(size=120)
    estimates = {"a": error * wrong, "b": wrong}
    part = HeldOut(Regression("n", center=0.0, scale=1.0), estimates, np.zeros(120), np.ones((2, 120)), draws=blocks)
    judge = SimpleNamespace(found=SimpleNamespace(folds=(None,) if has_cuts else ()))
    assert Judge._leads_a_series(judge, part, "a", "b") == expected
