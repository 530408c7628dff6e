"""The runner: it measures every cell once, keeps each, goes on after a stop, and a broken method does not end it."""

import json
from dataclasses import replace

import pytest
import torch
from tiny_problem import loaders, tiny_problem

from motet import RequestError
from motet.balance import methods, wrappers
from motet.bench import BUDGETS, Budget, Grid, Store, contenders, problem_loaders, run_cell, run_grid
from motet.bench._cell import tell_length
from motet.bench._store import cell_key

FULL = BUDGETS["full"]
GRID = Grid(["single", "equal", "cagrad"], [0, 1], FULL)


def without_clocks(cell):
    return {name: value for name, value in cell.items() if not name.endswith("_seconds")}


def test_a_network_learns_and_single_has_every_task():
    cell = run_cell(tiny_problem(num_rows=512, epochs=10), "equal", 0, FULL)
    assert cell["status"] == "done"
    assert min(cell["scores"].values()) > 0.9
    single = run_cell(tiny_problem(), "single", 0, FULL)
    assert set(single["scores"]) == {"first", "second"}
    assert single["scores"] != run_cell(tiny_problem(), "equal", 0, FULL)["scores"]


@pytest.mark.parametrize("method", [name for name in contenders() if name != "single"])
def test_every_method_runs_and_repeats(method):
    one, two = (run_cell(tiny_problem(), method, 3, FULL) for _ in range(2))
    assert one["status"] == "done", one
    assert without_clocks(one) == without_clocks(two)


def test_the_callers_random_numbers_stay_as_they_were():
    before = torch.random.get_rng_state()
    run_cell(tiny_problem(), "random", 3, FULL)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_stopped_run_goes_on_to_the_same_result(tmp_path):
    told = []

    def stop(cell, done, total):
        told.append((done, total))
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_grid(loaders("a", "b"), GRID, Store(tmp_path / "stopped"), tell=stop)
    assert told == [(1, 12), (2, 12), (3, 12), (4, 12)]
    told.clear()
    resumed = run_grid(loaders("a", "b"), GRID, Store(tmp_path / "stopped"), tell=lambda *words: told.append(words[1:]))
    assert told[0] == (5, 12)
    whole = run_grid(loaders("a", "b"), GRID, Store(tmp_path / "whole"))
    assert [without_clocks(cell) for cell in resumed.cells] == [without_clocks(cell) for cell in whole.cells]
    assert [cell["seed"] for cell in whole.cells[:4]] == [0, 1, 0, 1]
    assert not list(tmp_path.rglob("*.part"))


def test_a_damaged_cell_is_measured_anew(tmp_path):
    store = Store(tmp_path)
    first = run_grid(loaders(), GRID, store)
    path = next(tmp_path.glob("tiny.cagrad.0.*.json"))
    path.write_text(path.read_text()[:40])
    told = []
    second = run_grid(loaders(), GRID, store, tell=lambda cell, *_: told.append(cell["method"]))
    assert told == ["cagrad"]
    assert [without_clocks(cell) for cell in first.cells] == [without_clocks(cell) for cell in second.cells]


def test_a_cell_is_known_by_all_that_determines_it():
    plain = tiny_problem()
    key = cell_key(plain.fingerprint(), "cagrad", 0, FULL, 1)
    assert key == cell_key(tiny_problem().fingerprint(), "cagrad", 0, FULL, 1)
    others = [
        cell_key(replace(plain, schedule=replace(plain.schedule, epochs=3)).fingerprint(), "cagrad", 0, FULL, 1),
        cell_key(tiny_problem(num_rows=96).fingerprint(), "cagrad", 0, FULL, 1),
        cell_key(plain.fingerprint(), "mgda", 0, FULL, 1),
        cell_key(plain.fingerprint(), "cagrad", 1, FULL, 1),
        cell_key(plain.fingerprint(), "cagrad", 0, BUDGETS["quick"], 1),
        cell_key(plain.fingerprint(), "cagrad", 0, FULL, 2),
    ]
    assert len({key, *others}) == 7


def test_what_breaks_is_a_result(tmp_path):
    problem = tiny_problem()
    problem.train.inputs["x"][:] = float("nan")
    cell = run_cell(problem, "equal", 0, FULL)
    assert cell["status"] == "failed"
    assert "Task 'first'" in cell["error"]
    slow = run_cell(tiny_problem(), "equal", 0, Budget("full", 1.0, 0.0))
    assert (slow["status"], slow["scores"]) == ("out of time", {})
    assert Store(tmp_path).keep(cell, "k")["key"] == "k"
    assert json.loads((tmp_path / "tiny.equal.0.k.json").read_text())["status"] == "failed"


def test_what_counts_steps_is_told_how_many_there_are():
    stch, dwa = methods()["stch"](), methods()["dwa"]()
    tell_length(stch, 200)
    tell_length(dwa, 200)
    assert (stch.warm_up, stch.nadir_steps, dwa.window) == (20, 10, 10)


def test_names_that_do_not_exist_are_refused():
    with pytest.raises(RequestError, match=r"no problem 'multimnst'.*Did you mean 'multimnist'"):
        problem_loaders(["multimnst"])
    with pytest.raises(RequestError, match=r"no balancing method 'cagard'.*Did you mean 'cagrad'"):
        contenders(["cagard"])
    with pytest.raises(RequestError, match=r"0 seeds.*at least one of each"):
        Grid(["equal"], [], FULL)
    with pytest.raises(RequestError, match="--jobs 0 was given; at least 1"):
        run_grid(loaders(), GRID, Store.__new__(Store), jobs=0)


def test_contenders_start_with_what_they_are_measured_against():
    assert contenders(["cagrad", "equal"]) == ["single", "equal", "cagrad"]
    everything = contenders()
    assert ({*methods(), *wrappers()} - {"accumulation"}) <= set(everything)
    assert "accumulation" not in everything


@pytest.mark.slow
def test_two_processes_give_the_same(tmp_path):
    together = run_grid(loaders(), GRID, Store(tmp_path / "two"), jobs=2)
    alone = run_grid(loaders(), GRID, Store(tmp_path / "one"))
    assert [without_clocks(cell) for cell in together.cells] == [without_clocks(cell) for cell in alone.cells]
