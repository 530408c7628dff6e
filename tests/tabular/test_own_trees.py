"""Trees grow beside the networks; what goes wrong on one side ends the other."""

import time

import pytest
import torch
from small_tables import TARGETS, small_table

from motet import FitSettings, TabularModel
from motet.tabular._own_trees import _share


class Watches:
    """A display that keeps the records and fails at one of them."""

    def __init__(self, fails_at: str = "") -> None:
        self.records, self.fails_at = [], fails_at

    def __call__(self, record):
        self.records.append(record)
        if record.get("stage", "").startswith(self.fails_at or "nowhere") and record["event"] == "evaluate":
            message = "no space left"
            raise OSError(message)

    def close(self):
        pass


SETTINGS = FitSettings(max_epochs=200, threads=2, resamples=50)


def test_the_trees_of_all_targets_are_in_the_proof_and_threads_are_as_before():
    before = torch.get_num_threads()
    display = Watches()
    model = TabularModel(list(TARGETS), settings=FitSettings(max_epochs=3, threads=3, resamples=50))
    model.fit(small_table(400), display=display)
    grown = {r["stage"] for r in display.records if r["event"] == "evaluate" and r["stage"].startswith("own_lightgbm")}
    assert grown == {f"own_lightgbm:{target.partition(':')[0]}" for target in TARGETS}
    assert torch.get_num_threads() == before


def test_a_failure_beside_the_networks_ends_them_soon():
    table = small_table(600)
    display = Watches("own_lightgbm")
    with pytest.raises(OSError, match="no space left"):
        TabularModel(list(TARGETS), settings=SETTINGS).fit(table, display=display)
    epochs = [record["epoch"] for record in display.records if record.get("stage") == "shared" and "epoch" in record]
    assert max(epochs, default=0.0) < SETTINGS.max_epochs / 2


def test_a_failure_of_the_networks_ends_the_trees_soon(monkeypatch):
    """Of trees that would grow for minutes no more than the round at hand is finished."""
    monkeypatch.setattr("motet.tabular._boosting.ROUNDS", 1_000_000)
    monkeypatch.setattr("motet.tabular._boosting.PATIENCE", 1_000_000)
    begun = time.monotonic()
    with pytest.raises(OSError, match="no space left"):
        TabularModel(list(TARGETS), settings=SETTINGS).fit(small_table(600), display=Watches("shared"))
    assert time.monotonic() - begun < 120  # not a matter of speed: unstopped they grow for hours


def test_a_task_may_take_more_than_its_part_and_the_last_all_that_is_left():
    assert _share(0.5) == _share(1) == 1.0
    assert 1 / 6 < _share(6) < 1 / 2
