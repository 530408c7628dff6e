"""A fit that was interrupted and resumed gives what an uninterrupted one gives; a seed gives the same twice."""

import json

import polars as pl
import pytest
import torch
from small_tables import QUICK, TARGETS, quick_fit, small_table

from motet import TabularModel, load

TABLE = small_table(600)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def whole():
    """The fit that nothing interrupted."""
    return quick_fit(TABLE)


class Interrupts:
    """A display that presses Ctrl-C at the given evaluation of a stage."""

    def __init__(self, stage: str, number: int) -> None:
        self.stage, self.left, self.closed = stage, number, False

    def __call__(self, record):
        if record["event"] == "evaluate" and record["stage"] == self.stage:
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt

    def close(self):
        self.closed = True


def same(found: TabularModel, expected: TabularModel) -> None:
    """Every number of the proof, and every prediction, is exactly the same; only what was spent may differ."""
    assert found.metrics_["tasks"] == expected.metrics_["tasks"]
    assert found.metrics_["rows"] == expected.metrics_["rows"]
    rows = {name: cost["rows"] for name, cost in expected.metrics_["compute"].items()}
    assert {name: cost["rows"] for name, cost in found.metrics_["compute"].items()} == rows
    assert found.predict(TABLE, intervals=True).equals(expected.predict(TABLE, intervals=True))


def interrupted(out, *moments: tuple[str, int]) -> TabularModel:
    """A fit that is interrupted at each moment in turn, then finished."""
    for attempt, (stage, number) in enumerate(moments):
        display = Interrupts(stage, number)
        model = TabularModel(list(TARGETS), settings=QUICK)
        with pytest.raises(KeyboardInterrupt):
            model.fit(TABLE, out=out, resume=attempt > 0, display=display)
        assert display.closed
        assert json.loads((out / "run.json").read_text())["status"] == "unfinished"
    return TabularModel(list(TARGETS), settings=QUICK).fit(TABLE, out=out, resume=True)


@pytest.mark.parametrize(
    "moments",
    [
        [("own_lightgbm:bought", 1)],
        [("shared", 1)],
        [("shared", 5)],
        [("own_network:amount", 1)],
        [("own_network:grade", 2)],
        [("shared", 3), ("shared", 4), ("own_network:bought", 2)],
    ],
    ids=lambda moments: "-".join(f"{stage}-{number}" for stage, number in moments),
)
@pytest.mark.parametrize("seconds_between", [0.0, 1e9], ids=["checkpoints", "none"])
def test_an_interrupted_fit_gives_what_a_whole_one_gives(tmp_path, monkeypatch, whole, moments, seconds_between):
    monkeypatch.setattr("motet.train._checkpoint.SECONDS_BETWEEN", seconds_between)
    found = interrupted(tmp_path / "run", *moments)
    same(found, whole)
    same(load(tmp_path / "run"), whole)
    assert not (tmp_path / "run" / "work").exists()


def test_a_checkpoint_saves_work(tmp_path, monkeypatch):
    """Without it the test above would hold for a resume that begins anew."""
    monkeypatch.setattr("motet.train._checkpoint.SECONDS_BETWEEN", 0.0)
    steps = []

    class Watches(Interrupts):
        def __call__(self, record):
            if record["event"] == "evaluate" and record["stage"] == "shared":
                steps.append(record["step"])
            super().__call__(record)

    model = TabularModel(list(TARGETS), settings=QUICK)
    with pytest.raises(KeyboardInterrupt):
        model.fit(TABLE, out=tmp_path / "run", display=Watches("shared", 5))
    done = steps[-2]  # the interrupt came before the fifth evaluation was saved
    steps.clear()
    model.fit(TABLE, out=tmp_path / "run", resume=True, display=Watches("", 0))
    assert steps[0] > done


def test_a_training_that_ended_by_patience_does_not_go_on_when_resumed(tmp_path, monkeypatch):
    """The checkpoint of the last evaluation is there when a later stage is interrupted."""
    monkeypatch.setattr("motet.train._checkpoint.SECONDS_BETWEEN", 0.0)
    from motet import FitSettings

    settings = FitSettings(max_epochs=200, threads=1, resamples=50)
    table, targets = small_table(300), ["amount", "bought"]
    whole = TabularModel(targets, settings=settings).fit(table)
    epochs = whole.metrics_["compute"]["shared"]["rows"] / whole.metrics_["rows"]["train"]
    assert epochs < 199, "the shared training must end by patience for this test to say something"
    with pytest.raises(KeyboardInterrupt):
        TabularModel(targets, settings=settings).fit(
            table, out=tmp_path / "run", display=Interrupts("own_network:bought", 1)
        )
    found = TabularModel(targets, settings=settings).fit(table, out=tmp_path / "run", resume=True)
    assert found.metrics_["tasks"] == whole.metrics_["tasks"]
    assert found.metrics_["compute"]["shared"]["rows"] == whole.metrics_["compute"]["shared"]["rows"]


def test_the_same_seed_twice_gives_the_same_predictions(whole):
    same(quick_fit(TABLE), whole)


def test_another_seed_gives_others(whole):
    other = quick_fit(TABLE, seed=1)
    assert other.metrics_["tasks"] != whole.metrics_["tasks"]


def test_a_fit_does_not_touch_the_global_random_numbers():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    quick_fit(small_table(200), "bought")
    assert torch.equal(torch.rand(3), expected)


def test_the_order_in_which_a_log_is_written_twice_does_not_show(tmp_path, monkeypatch, whole):
    """What an interrupted call wrote and a later call wrote again stands once in the finished log."""
    monkeypatch.setattr("motet.train._checkpoint.SECONDS_BETWEEN", 1e9)
    interrupted(tmp_path / "run", ("shared", 5))
    records = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]

    def places(records):
        return [(record["event"], record["stage"], record.get("step")) for record in records]

    assert sorted(places(records), key=str) == sorted(places(whole.log_), key=str)
    assert len(set(places(records))) == len(records)


def test_an_unsaved_model_and_its_run_are_the_same(tmp_path, whole):
    whole.save(tmp_path / "run")
    loaded = load(tmp_path / "run")
    assert loaded.predict(TABLE).equals(whole.predict(TABLE))
    assert isinstance(loaded.predict(TABLE), pl.DataFrame)
    same(loaded, whole)
