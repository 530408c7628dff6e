"""Which tasks the learner of all tasks may serve: estimates made up, so that the right verdict is known."""

import numpy as np
import polars as pl
import pytest
from school_tables import schools

from motet.tabular.task_column._choice import BLEND, SERVED, best_learner, guard_tasks
from motet.tabular.task_column._learners import Budget
from motet.tabular.task_column._own import Own
from motet.tabular.task_column._part import Part
from motet.tabular.task_column._table import read_task_table
from motet.train import Clock


def part_of(sizes: dict[str, int], shared: dict[str, float], own: dict[str, float], seed: int = 0) -> Part:
    """Tasks of so many rows, on which the two models err by so much, independently."""
    names = [name for name, size in sizes.items() for _ in range(size)]
    draw = np.random.default_rng(seed)
    frame = pl.DataFrame({"x": draw.normal(size=len(names)), "school": names, "score": draw.normal(size=len(names))})
    table = read_task_table(frame, "score:regression", "school", split=None, split_column=None, roles={}, seed=0)
    rows, truth = np.arange(len(names)), frame["score"].to_numpy()
    estimates = {
        key: truth + draw.normal(size=len(names)) * np.array([errors[name] for name in names])
        for key, errors in ((SERVED, shared), (Own.name, own))
    }
    estimates[BLEND] = 0.5 * (estimates[SERVED] + estimates[Own.name])
    return Part(table, rows, estimates, resamples=500, seed=0)


def test_a_task_with_rows_enough_is_judged_by_them():
    sizes = dict.fromkeys(["good", "bad"], 300)
    part = part_of(sizes, {"good": 1.0, "bad": 2.0}, {"good": 2.0, "bad": 1.0})
    found = guard_tasks(part, list(sizes), 0.5)
    assert found.served_by == {"good": "shared", "bad": "own_lightgbm"}
    assert {name: (guard.verdict, guard.tested, guard.rows) for name, guard in found.guards.items()} == {
        "good": ("not worse", "alone", 300), "bad": ("worse", "alone", 300)
    }  # fmt: skip
    assert found.guards["bad"].comparison.gain == pytest.approx(-100, abs=20)


def test_tasks_with_few_rows_are_tested_together_and_without_the_one_that_is_worse():
    sizes = {f"few{number}": 8 for number in range(20)} | {"bad": 300}
    part = part_of(sizes, {**dict.fromkeys(sizes, 1.0), "bad": 3.0}, {**dict.fromkeys(sizes, 2.0), "bad": 1.0})
    found = guard_tasks(part, list(sizes), 0.5)
    assert found.of("own_lightgbm") == {"bad"}
    guard = found.guards["few3"]
    assert (guard.verdict, guard.tested, guard.rows, guard.tasks) == ("not worse", "together", 160, 20)
    assert found.guards["bad"].tested == "alone"


def test_of_two_models_that_are_as_good_the_mean_serves():
    sizes = {f"t{number}": 60 for number in range(5)}
    part = part_of(sizes, dict.fromkeys(sizes, 1.0), dict.fromkeys(sizes, 1.0))
    found = guard_tasks(part, list(sizes), 0.5)
    assert set(found.served_by.values()) == {BLEND}
    assert found.blend is not None
    single = guard_tasks(part, list(sizes), 0.5, blends=False)
    assert set(single.served_by.values()) == {"own_lightgbm"}
    assert single.blend is None
    assert found.blend.verdict == "not worse"
    assert found.blend.comparison.gain == pytest.approx(100 * (1 - 0.5**0.5), abs=8)  # two errors of half the size


def test_where_nothing_can_be_proven_each_task_keeps_its_own_model():
    sizes = {"a": 6, "b": 6, "not learned": 40}
    part = part_of(sizes, dict.fromkeys(sizes, 1.0), dict.fromkeys(sizes, 1.0))
    for names in (["a", "b"], ["a"]):
        found = guard_tasks(part, names, 0.5)
        assert found.served_by == dict.fromkeys(names, "own_lightgbm")
        assert {guard.verdict for guard in found.guards.values()} == {"not proven"}


def test_a_harmful_model_seldom_serves():
    """Ten times the shared model is worse by a tenth on every task of few rows: it may serve them in one of ten."""
    served = 0
    for seed in range(10):
        sizes = {f"t{number}": 15 for number in range(40)}
        part = part_of(sizes, dict.fromkeys(sizes, 1.15), dict.fromkeys(sizes, 1.0), seed)
        served += "shared" in guard_tasks(part, list(sizes), 0.5).served_by.values()
    assert served <= 1


def test_rows_of_a_series_are_drawn_in_blocks_within_their_task():
    """Errors that stay alike for long prove less than as many independent ones."""
    draw = np.random.default_rng(1)
    waves = np.zeros((2, 300))
    for place in range(1, 300):
        waves[:, place] = 0.8 * waves[:, place - 1] + draw.normal(size=2)
    sizes = {"a": 300, "b": 300}
    part = part_of(sizes, dict.fromkeys(sizes, 1.0), dict.fromkeys(sizes, 1.0))
    rows, truth = part.rows, part.targets
    series = truth + waves.ravel()
    estimates = {SERVED: series, Own.name: truth + 1.0, BLEND: truth}
    found = Part(part.table, rows, estimates, resamples=300, seed=0).held_out(part.owners == "a")
    assert 2 < found.num_draws < 60
    mixed_up = draw.permutation(300)
    shuffled = truth + np.concatenate([wave[mixed_up] for wave in waves])
    alone = Part(part.table, rows, estimates | {SERVED: shuffled}, resamples=300, seed=0).held_out(part.owners == "a")
    assert alone.num_draws == 300


def test_pooled_stands_unless_another_is_proven_better():
    sizes = {"a": 200}
    part = part_of(sizes, {"a": 1.0}, {"a": 1.0})
    part.estimates |= {"pooled": part.estimates[SERVED], "robust": part.targets + 0.1, "heads": part.targets + 5.0}
    learner, gains = best_learner(part.held_out(), ["pooled", "robust", "heads"])
    assert learner == "robust"
    assert gains["heads"].high < 0
    part.estimates["robust"] = part.estimates["pooled"] * 1.0001
    assert best_learner(part.held_out(), ["pooled", "robust", "heads"])[0] == "pooled"


def test_own_models_know_their_own_rows_only():
    frame = schools(400, num_tasks=2)
    table = read_task_table(frame, "score:regression", "school", split=None, split_column=None, roles={}, seed=0)

    own = Own.fit(table, Budget(Clock(), 0, 1, None))
    assert set(own.trees) == {"s0", "s1"}
    encoded = table.encoded.take(table.labelled("test"))
    found = own.estimate(encoded)
    changed = Own.fit(
        read_task_table(
            frame.with_columns(score=pl.when(pl.col("school") == "s1").then(pl.col("score") + 100).otherwise("score")),
            "score:regression", "school", split=None, split_column=None, roles={}, seed=0,
        ),
        Budget(Clock(), 0, 1, None),
    ).estimate(encoded)  # fmt: skip
    mine = encoded.owners == "s0"
    np.testing.assert_allclose(changed[mine], found[mine], atol=1e-4)
    assert (changed[~mine] > found[~mine] + 50).all()
    document, tensors = own.only(frozenset({"s1"})).to_files()
    again = Own.from_files(table.task, document, tensors)
    np.testing.assert_allclose(again.estimate(encoded)[~mine], found[~mine])
    constant = table.task.baseline(table.targets(table.labelled("train")))[0]
    assert again.estimate(encoded)[mine] == pytest.approx(constant)
