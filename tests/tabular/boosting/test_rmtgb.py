"""Robust boosting: learns each kind, keeps tasks by name, finds who stands apart, and stops when it should."""

import dataclasses

import numpy as np
import pytest
from task_tables import APART, NAMES, signal, task_rows

from motet import RequestError
from motet.tabular.boosting import RMTGB, TaskRows
from motet.tasks import Binary, Count, Multiclass, Quantile, Regression, Task
from motet.train import Clock

NUMBER = Regression("score", center=0.0, scale=1.2)
TEST = task_rows(600, seed=9)


@pytest.fixture(scope="module")
def model() -> RMTGB:
    return RMTGB.fit(NUMBER, task_rows(900, 0), task_rows(300, 1))[0]


def test_the_split_is_found_and_its_small_side_is_the_far_one(model: RMTGB) -> None:
    assert model.plan == "blocks"
    assert {reading.task for reading in model.readings if reading.outlier} == APART
    shares = {reading.task: reading.share for reading in model.readings}
    assert all((shares[name] > 0.9) == (name in APART) for name in NAMES)
    apart = model.readings[0]
    assert apart.rows == 150
    assert apart.gain_percent > 100
    assert model.stop_losses["blocks"] < 0.8 * min(model.stop_losses["task"], model.stop_losses["small"])


def test_it_beats_trees_that_only_know_the_task_where_tasks_stand_apart(model: RMTGB) -> None:
    plain = RMTGB.fit(NUMBER, task_rows(900, 0), task_rows(300, 1), plans=("task",))[0]
    errors = [
        np.sqrt(np.mean((found.estimate(TEST.matrix, TEST.owners) - TEST.targets) ** 2)) for found in (model, plain)
    ]
    assert errors[0] < 0.85 * errors[1]


def test_a_row_has_one_answer_alone_in_any_order_and_beside_any_tasks(model: RMTGB) -> None:
    together = model.estimate(TEST.matrix, TEST.owners)
    one_school = TEST.owners == "school 4"
    np.testing.assert_array_equal(
        model.estimate(TEST.matrix[one_school], TEST.owners[one_school]), together[one_school]
    )
    turned = model.estimate(TEST.matrix[::-1], TEST.owners[::-1])[::-1]
    np.testing.assert_array_equal(turned, together)
    np.testing.assert_array_equal(model.estimate(TEST.matrix[:1], TEST.owners[:1]), together[:1])


def test_names_of_tasks_and_their_order_change_nothing_but_names(model: RMTGB) -> None:
    """The released code numbers tasks as it meets them."""
    new = {name: f"{5 - place} {name}" for place, name in enumerate(NAMES)}

    def renamed(rows: TaskRows) -> TaskRows:
        return dataclasses.replace(rows, owners=np.array([new[name] for name in rows.owners]))

    other = RMTGB.fit(NUMBER, renamed(task_rows(900, 0)), renamed(task_rows(300, 1)))[0]
    found = other.estimate(TEST.matrix, renamed(TEST).owners)
    assert np.corrcoef(found, model.estimate(TEST.matrix, TEST.owners))[0, 1] > 0.99
    assert {reading.task for reading in other.readings if reading.outlier} == {new[name] for name in APART}


def test_a_task_never_seen_gets_the_mean_of_the_known_ones(model: RMTGB) -> None:
    rows = TEST.matrix[:20]
    known = [model.estimate(rows, np.full(20, name)) for name in NAMES]
    found = model.estimate(rows, np.array(["new school"] * 19 + ["school 0"]))
    assert found[:19] == pytest.approx(np.mean(known, axis=0)[:19])
    assert found[19] == known[0][19]


def test_bytes_keep_every_answer_and_reading(model: RMTGB) -> None:
    again = RMTGB.from_bytes(NUMBER, model.to_bytes())
    np.testing.assert_array_equal(again.estimate(TEST.matrix, TEST.owners), model.estimate(TEST.matrix, TEST.owners))
    assert again.readings == model.readings
    assert (again.plan, again.tasks) == (model.plan, NAMES)


def test_it_stops_early_and_goes_back_to_the_best_round() -> None:
    def noise(matrix: np.ndarray, owners: np.ndarray) -> np.ndarray:
        return np.random.default_rng(len(matrix)).normal(size=len(matrix))

    model, passed = RMTGB.fit(NUMBER, task_rows(300, 0, noise), task_rows(120, 1, noise))
    assert passed < 300 * 7 * 120
    stop = task_rows(120, 1, noise)
    constant = np.mean(0.5 * ((stop.targets - task_rows(300, 0, noise).targets.mean()) / 1.2) ** 2)
    assert model.stop_losses[model.plan] <= constant
    assert not any(reading.outlier for reading in model.readings)


def level(matrix: np.ndarray, owners: np.ndarray) -> np.ndarray:
    return np.digitize(signal(matrix, owners), [-0.7, 0.7])


KINDS: list[tuple[Task, object, str]] = [
    (Binary("t", classes=(False, True)), lambda m, o: (signal(m, o) > 0).astype(np.float32), "roc_auc"),
    (Multiclass("t", classes=("a", "b", "c")), level, "macro_roc_auc"),
    (Count("t", scale=2.0), lambda m, o: np.floor(np.exp(1 + signal(m, o) / 2)).astype(np.float32), "r2"),
]


@pytest.mark.parametrize(("task", "targets", "metric"), KINDS, ids=[case[0].kind for case in KINDS])
def test_each_kind_is_learned(task: Task, targets: object, metric: str) -> None:
    model, _ = RMTGB.fit(task, task_rows(600, 0, targets), task_rows(180, 1, targets), plans=("blocks",))
    test = task_rows(300, 2, targets)
    estimates = model.estimate(test.matrix, test.owners)
    assert task.metrics(estimates, test.targets)[metric] > 0.8
    again = RMTGB.from_bytes(task, model.to_bytes()).estimate(test.matrix, test.owners)
    np.testing.assert_array_equal(again, estimates)


def test_missing_numbers_and_categories_are_read_as_such() -> None:
    """The label is the category's parity where the number is missing, which no order of codes tells."""
    draw = np.random.default_rng(0)
    matrix = np.column_stack([draw.normal(size=900), draw.integers(0, 8, 900)]).astype(np.float32)
    matrix[draw.random(900) < 0.5, 0] = np.nan
    targets = np.where(np.isnan(matrix[:, 0]), matrix[:, 1] % 2, 0.5)
    owners = np.array(NAMES)[np.arange(900) % 6]
    parts = [TaskRows(matrix[part], owners[part], targets[part], 1) for part in (slice(0, 600), slice(600, 900))]
    model, _ = RMTGB.fit(Regression("t", center=0.5, scale=0.3), *parts, plans=("blocks", "task"))
    found = model.estimate(parts[1].matrix, parts[1].owners)
    assert np.abs(found - parts[1].targets).mean() < 0.05


def test_one_task_no_stop_rows_and_no_time_still_give_answers() -> None:
    rows = task_rows(200, 0)
    alone = dataclasses.replace(rows, owners=np.full(200, "only"))
    none = TaskRows(rows.matrix[:0], rows.owners[:0], rows.targets[:0])
    assert RMTGB.fit(NUMBER, alone, none, plans=("blocks",))[0].plan == "task"
    late, passed = RMTGB.fit(NUMBER, rows, rows, clock=Clock(0.0))
    assert passed == 0
    assert late.estimate(rows.matrix, rows.owners) == pytest.approx(rows.targets.mean(), abs=1e-6)
    without, _ = RMTGB.fit(NUMBER, rows, none, plans=("task",))
    assert without.stop_losses == {}
    assert without.readings[0].gain_percent is None


def test_a_task_with_one_row_or_with_stop_rows_alone_does_no_harm() -> None:
    rows = task_rows(300, 0)
    rows.owners[0], stop = "tiny", task_rows(60, 1)
    stop.owners[:5] = "stop only"
    model, _ = RMTGB.fit(NUMBER, rows, stop, plans=("blocks",))
    assert "tiny" in model.tasks
    assert "stop only" not in model.tasks
    assert np.isfinite(model.estimate(TEST.matrix, TEST.owners)).all()


def test_the_same_seed_gives_the_same_model() -> None:
    first, second = (RMTGB.fit(NUMBER, task_rows(300, 0), task_rows(90, 1), seed=5)[0] for _ in range(2))
    assert first.to_bytes() == second.to_bytes()


@pytest.mark.parametrize(
    ("task", "rows", "plans", "words"),
    [
        (
            Quantile("q", levels=(0.1, 0.9), center=0.0, scale=1.0),
            task_rows(30, 0),
            ("task",),
            "'q' is of kind quantile",
        ),
        (NUMBER, task_rows(0, 0), ("task",), "no labelled train row.*Give rows with labels"),
        (NUMBER, task_rows(30, 0), ("blocs",), "one or more of blocks, small, task were expected"),
    ],
)
def test_what_cannot_be_fitted_is_refused(task: Task, rows: TaskRows, plans: tuple[str, ...], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        RMTGB.fit(task, rows, rows, plans=plans)
