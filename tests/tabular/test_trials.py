"""Trials of sharing architectures: halving, the journal, and who is not disturbed."""

import json

import numpy as np
import pytest
import torch
from small_tables import small_table

from motet.tabular import _trials
from motet.tabular._candidates import Plan
from motet.tabular._prepared import prepare
from motet.tabular._trials import ARCHITECTURES, RUNGS, Journal, Trials, tried
from motet.train import Clock

SCORES = {"hard": 0.30, "mmoe": 0.36, "ple": 0.10, "home": 0.32, "multitab-net": 0.0}


@pytest.fixture(scope="module")
def table():
    return prepare(
        small_table(300), ["amount:regression", "bought:binary"], split="random", split_column=None, roles={}, seed=0
    )


def plan(**changes) -> Plan:
    asked = {"balance": "equal", "sharing": "hard", "sharing_settings": None, "max_epochs": 2, "seed": 0, "threads": 1}
    return Plan(**asked | {"device": "cpu", "work": None} | changes)


@pytest.fixture
def trainings(monkeypatch):
    """Trainings that take no time; what was trained is in the list."""
    done = []

    def pretend(self, name, part, clock):
        done.append((name, part))
        return {"score": SCORES[name], "seconds": 0.1, "epochs": 1.0}

    monkeypatch.setattr(Trials, "_try", pretend)
    return done


def trials(table, journal=None, **changes) -> Trials:
    return Trials(table, plan(**changes), journal or Journal(None), lambda record: None)


def test_the_better_half_goes_on_and_the_best_is_taken(table, trainings):
    found = trials(table).best(Clock(None))
    assert (found.sharing, found.sharing_settings) == ("mmoe", None)
    assert trainings == [*((name, RUNGS[0]) for name in ARCHITECTURES),
                         *((name, RUNGS[1]) for name in ("mmoe", "home", "hard"))]  # fmt: skip


def test_what_was_asked_for_stays_unless_another_is_clearly_better(table, trainings, monkeypatch):
    monkeypatch.setitem(SCORES, "mmoe", 0.305)
    monkeypatch.setitem(SCORES, "home", 0.305)
    assert trials(table).best(Clock(None)).sharing == "hard"


@pytest.mark.parametrize("changes", [{"sharing": "ple"}, {"sharing_settings": {"x": 1}}])
def test_an_architecture_that_was_asked_for_is_not_questioned(table, trainings, changes):
    asked = plan(**changes)
    assert trials(table, **changes).best(Clock(None)) == asked
    assert trainings == []


def test_without_time_nothing_is_tried(table, trainings):
    assert trials(table).best(Clock(0.01)).sharing == "hard"
    assert trainings == []


def test_finished_trials_are_not_repeated_after_a_kill(table, trainings, tmp_path):
    path = tmp_path / "trials.jsonl"
    first = trials(table, Journal(path)).best(Clock(None))
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:-1]) + "\n" + lines[-1][:20])  # the kill came while the last was written
    trainings.clear()
    journal = Journal(path)
    assert trials(table, journal).best(Clock(None)) == first
    assert trainings == [("hard", RUNGS[1])]
    assert [json.loads(line) for line in path.read_text().splitlines()] == journal.records
    assert {one["name"] for one in tried(journal, "mmoe") if one["kept"]} == {"mmoe"}


def test_a_real_trial_is_scored_on_the_stop_rows(table, monkeypatch):
    monkeypatch.setattr(_trials, "ARCHITECTURES", ("hard", "mmoe"))
    journal = Journal(None)
    Trials(table, plan(device=torch.device("cpu")), journal, lambda record: None).best(Clock(None))
    assert sorted(one["name"] for one in journal.records) == ["hard", "hard", "mmoe", "mmoe"]
    assert all(np.isfinite(one["score"]) and one["score"] < 1 and one["seconds"] > 0 for one in journal.records)
