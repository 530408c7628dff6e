"""One small network taught by what serves: its losses, its lessons, and when it may serve."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from small_tables import TARGETS, small_table
from torch import Tensor

import motet
from motet import FitSettings, TabularModel
from motet.data import FeatureEncoder, Features
from motet.data._columns import DateColumn, NumberColumn
from motet.report import write_report
from motet.tabular import _distil, _lessons
from motet.tabular import _model as model_module
from motet.tabular._candidates import Candidates
from motet.tabular._guard import Comparison
from motet.tabular._judge import Judged, may_serve
from motet.tabular._lessons import _known_well
from motet.tabular._network import TrainedNetwork
from motet.tabular._prepared import Prepared, prepare
from motet.tabular._taught import Taught, distance, estimate_width, label_width, labels_of, pack
from motet.tasks import Binary, Count, Multiclass, Multilabel, Ordinal, Quantile, Regression, Task
from motet.train import Clock

KINDS: list[Task] = [
    Regression("a", center=2.0, scale=3.0),
    Binary("b", classes=(False, True)),
    Multiclass("c", classes=("x", "y", "z")),
    Ordinal("d", classes=(1, 2, 3)),
    Multilabel("e", labels=("p", "q")),
    Count("f", scale=4.0),
    Count("g", scale=4.0, family="negative_binomial"),
    Quantile("h", levels=(0.1, 0.5, 0.9), center=2.0, scale=3.0),
]
ROWS = 6


def problem(task: Task, seed: int = 0) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """Raw outputs, labels as the task encodes them, and a teacher's estimates."""
    generator = torch.Generator().manual_seed(seed)
    outputs = torch.randn(ROWS, task.num_outputs, generator=generator)
    soft = task.estimate(torch.randn(ROWS, task.num_outputs, generator=generator)).numpy().reshape(ROWS, -1)
    labels = np.arange(ROWS) % (2 if isinstance(task, (Binary, Multilabel)) else 3)
    if isinstance(task, Multilabel):
        labels = np.stack([labels, 1 - labels], axis=1)
    return outputs, labels if isinstance(task, (Multiclass, Ordinal)) else labels.astype(np.float32), soft


@pytest.mark.parametrize("task", KINDS, ids=lambda task: task.name + task.kind)
def test_label_and_estimate_each_have_their_loss_and_both_have_half_of_each(task: Task) -> None:
    outputs, labels, soft = problem(task)
    known, taught = np.array([1, 1, 0, 0, 1, 0], dtype=bool), np.array([1, 0, 1, 0, 1, 1], dtype=bool)
    targets = torch.from_numpy(pack(labels, known, np.where(taught[:, None], soft, np.nan), task))
    by_label = task.loss(outputs, torch.from_numpy(labels))
    by_teacher = distance(task, outputs, torch.from_numpy(soft).float())
    halves = torch.tensor([0.5, 1, 0, 0, 0.5, 0]), torch.tensor([0.5, 0, 1, 0, 0.5, 1])
    outputs.requires_grad_()
    losses = Taught(task).loss(outputs, targets)
    torch.testing.assert_close(losses, halves[0] * by_label + halves[1] * by_teacher)
    losses.sum().backward()
    assert torch.isfinite(outputs.grad).all()
    assert not outputs.grad[3].any()


@pytest.mark.parametrize("task", KINDS, ids=lambda task: task.name + task.kind)
def test_the_distance_to_a_teacher_is_least_where_the_two_agree(task: Task) -> None:
    outputs, _, soft = problem(task)
    found = distance(task, outputs, torch.from_numpy(soft).float())
    assert (found > 1e-4).all()
    outputs.requires_grad_()
    agreed = task.estimate(outputs.detach()).reshape(ROWS, -1)
    same = distance(task, outputs, agreed)
    torch.testing.assert_close(same, torch.zeros(ROWS), atol=1e-5, rtol=0)
    (grad,) = torch.autograd.grad(same.sum(), outputs)
    torch.testing.assert_close(grad, torch.zeros_like(grad), atol=1e-4, rtol=0)


def test_distances_by_hand() -> None:
    half = torch.zeros(1, 1)
    number, yes_no, grade, count = KINDS[0], KINDS[1], KINDS[2], KINDS[5]
    # An output of 0 is the centre 2; a teacher at 8 is two scales away.
    assert distance(number, half, torch.tensor([[8.0]])).item() == pytest.approx(0.5 * 2**2)
    expected = 0.9 * np.log(0.9 / 0.5) + 0.1 * np.log(0.1 / 0.5)
    assert distance(yes_no, half, torch.tensor([[0.9]])).item() == pytest.approx(expected, rel=1e-5)
    third = distance(grade, torch.zeros(1, 3), torch.tensor([[0.5, 0.5, 0.0]])).item()
    assert third == pytest.approx(np.log(1.5), rel=1e-5)
    # A mean of 4 and a teacher's 6: half the deviance is 4 - 6 + 6 log(6 / 4), over the scale 4.
    assert distance(count, half, torch.tensor([[6.0]])).item() == pytest.approx((6 * np.log(1.5) - 2) / 4, rel=1e-5)
    assert distance(count, half, torch.tensor([[0.0]])).item() == pytest.approx(1.0)


@pytest.mark.parametrize("task", KINDS, ids=lambda task: task.name + task.kind)
def test_scores_and_starts_are_of_the_labels_alone(task: Task) -> None:
    outputs, labels, soft = problem(task)
    known = np.array([1, 1, 1, 0, 0, 1], dtype=bool)
    targets, taught = pack(labels, known, soft, task), Taught(task)
    assert targets.shape == (ROWS, label_width(task) + estimate_width(task))
    np.testing.assert_array_equal(labels_of(task, targets)[0], labels[known])
    np.testing.assert_array_equal(labels_of(task, targets)[1], known)
    estimates = taught.estimate(outputs).numpy()
    np.testing.assert_array_equal(taught.score(estimates, targets), task.score(estimates[known], labels[known]))
    np.testing.assert_array_equal(taught.baseline(targets), task.baseline(labels[known]))
    np.testing.assert_array_equal(taught.initial_outputs(targets), task.initial_outputs(labels[known]))
    assert np.isnan(taught.score(estimates, pack(labels, np.zeros(ROWS, dtype=bool), soft, task))).all()
    assert taught.higher_is_better == task.higher_is_better


def test_a_new_row_is_made_of_two_rows_and_a_date_stays_whole() -> None:
    encoder = FeatureEncoder(
        (NumberColumn("n"),), (DateColumn("when", ("day", "month")),), tuple(small().encoder.category_columns)
    )
    numbers = np.arange(300, dtype=np.float32).reshape(100, 3)
    rows = Features(numbers, np.arange(100, dtype=np.int32)[:, None])
    made = _lessons.swap_columns(rows, encoder, 400, np.random.default_rng(0))
    assert made.numbers.shape == (400, 3)
    assert made.categories.shape == (400, 1)
    sources = np.stack([*(made.numbers // 3).T, made.categories[:, 0]], axis=1)
    np.testing.assert_array_equal(made.numbers % 3, np.tile([0.0, 1.0, 2.0], (400, 1)))
    np.testing.assert_array_equal(sources[:, 1], sources[:, 2])  # both parts of the date from one row
    kinds = [len(set(row)) for row in sources.tolist()]
    assert max(kinds) == 2
    assert np.mean(np.array(kinds) == 2) > 0.6  # one column at least is another row's, if not all of them


def small(rows: int = 200) -> Prepared:
    return prepare(small_table(rows), TARGETS, split="random", split_column=None, roles={}, seed=0)


def with_scores(tasks: Sequence[Task], score: float) -> Candidates:
    """Candidates of which no more is known than what the shared network scores; the best constant scores 1."""
    names = [task.name for task in tasks]
    best = SimpleNamespace(joint_scores=dict.fromkeys(names, score), constants=dict.fromkeys(names, 1.0))
    found = Candidates(np.array([], dtype=np.int64))
    found.networks[""] = cast("TrainedNetwork", SimpleNamespace(trained=SimpleNamespace(best=best)))
    return found


def test_a_teacher_speaks_only_of_rows_that_it_did_not_learn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = small()

    def said(_: object, tasks: list[Task], __: object, features: Features, **___: object) -> dict[str, np.ndarray]:
        return {task.name: np.full((len(features), estimate_width(task)), 0.25, dtype=np.float32) for task in tasks}

    monkeypatch.setattr(_lessons, "teach", said)
    nobody = with_scores(prepared.tasks, 1.0)
    lessons = _lessons.make_lessons(prepared, nobody, {}, seed=0, clock=Clock(), threads=1)
    train, stop = prepared.split.train, prepared.split.stop
    rows, count = np.concatenate([train, stop]), len(train) + len(stop)
    assert len(lessons.rows) == count + len(train)
    assert lessons.split.stop.tolist() == list(range(len(train), count))
    assert lessons.split.train.tolist() == [*range(len(train)), *range(count, count + len(train))]
    assert len(lessons.split.choose) == len(lessons.split.test) == 0
    np.testing.assert_array_equal(lessons.features.numbers[:count], prepared.features.numbers[rows])
    for task in prepared.tasks:
        targets = lessons.rows.targets[task.name].numpy()
        labels, known = labels_of(task, targets)
        heard = np.isfinite(targets[:, label_width(task) :]).all(axis=1)
        np.testing.assert_array_equal(labels, prepared.targets(task, rows)[0])
        np.testing.assert_array_equal(known[:count], prepared.targets(task, rows)[1])
        assert not known[count:].any()
        np.testing.assert_array_equal(heard[: len(train)], ~known[: len(train)])
        assert not heard[len(train) : count].any(), "stop rows end the training and teach nothing"
        assert heard[count:].all()
        np.testing.assert_array_equal(lessons.rows.present[task.name].numpy(), known | heard)
    assert (~prepared.rows.present["amount"].numpy()[train]).any(), "some labels are missing, or nothing was tested"
    silent = _lessons.make_lessons(prepared, nobody, {}, seed=0, clock=Clock(0.0), threads=1)
    assert silent.rows.present["bought"][count:].sum() == 0


def test_a_long_table_is_thinned_evenly() -> None:
    assert _lessons.thinned(np.arange(10) * 2, 4).tolist() == [0, 6, 12, 18]
    assert _lessons.thinned(np.arange(3), 4).tolist() == [0, 1, 2]


# The shared network, after three epochs, is far behind the trees on `amount`; its student is not.
LOOSE = FitSettings(max_epochs=3, threads=1, resamples=100, margin=40.0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[TabularModel, Path]:
    out = tmp_path_factory.mktemp("distilled") / "run"
    return TabularModel(list(TARGETS), settings=LOOSE).fit(small_table(1500), out=out), out


def test_one_small_network_serves_where_the_guard_lets_it(run: tuple[TabularModel, Path]) -> None:
    model, out = run
    tasks = model.metrics_["tasks"]
    assert tasks["amount"]["guard"]["verdict"] != "not worse"
    assert {part["served_by"] for part in tasks.values()} == {"distilled"}
    for part in tasks.values():
        assert part["motet"] == part["candidates"]["distilled"]["score"]
        assert part["distilled"]["admitted"]
        assert {part["distilled"][name]["verdict"] for name in ("against_served", "against_own")} == {"not worse"}
        assert sum(part["distilled"]["teacher"].values()) == pytest.approx(1.0)
    sizes = model.metrics_["artefact"]
    assert sizes["bytes"] < sizes["bytes_without_distilling"]
    assert sizes["bytes"] <= (out / "model.safetensors").stat().st_size < 1.1 * sizes["bytes"]
    assert model.metrics_["seconds"]["distilled"] > 0
    document = json.loads((out / "run.json").read_text())
    assert [network["candidate"] for network in document["networks"]] == ["distilled"]
    assert document["serving"]["amount"]["shares"] == {"distilled": 1.0}


def test_it_answers_alike_when_loaded_and_the_report_names_it(run: tuple[TabularModel, Path]) -> None:
    model, out = run
    loaded, table = motet.load(out), small_table(40, seed=1)
    assert not loaded.served_.trees
    for name, estimates in model.estimate(table).items():
        np.testing.assert_array_equal(loaded.estimate(table, tasks=[name])[name], estimates)
    text = write_report(out).read_text()
    assert "small distilled network" in text
    assert "their own model" not in text


@pytest.mark.parametrize(
    ("served", "own", "expected"),
    [
        ((0.1, -0.4, 0.6), (0.1, -0.4, 0.6), True),
        ((0.1, -0.9, 1.1), (0.8, 0.1, 1.5), True),  # the rows cannot tell from what serves; the own model is behind
        ((-0.2, -0.9, 0.5), (0.8, 0.1, 1.5), True),
        ((-0.6, -1.4, 0.2), (0.8, 0.1, 1.5), False),  # further below what serves than the margin, in the mean
        ((0.1, -0.9, 1.1), (0.1, -0.9, 1.1), False),  # nothing is proven against the own model
        ((2.0, 1.0, 3.0), (-1.0, -2.0, -0.6), False),
    ],
)
def test_the_own_model_must_be_matched_for_sure_and_what_serves_within_the_margin(served, own, expected) -> None:
    assert may_serve(Comparison(*served), Comparison(*own), 0.5) is expected


def test_of_a_number_that_is_known_well_no_teacher_speaks_of_new_rows() -> None:
    y, b = Regression("y"), Binary("b", classes=(False, True))
    assert _known_well(with_scores([y], 0.1), y)
    assert not _known_well(with_scores([y], 0.8), y)
    found = with_scores([b], 0.99)
    found.networks[""].trained.best.constants["b"] = 0.5
    assert not _known_well(found, b)


def test_a_student_that_is_worse_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    train, table = _distil.train_network, small_table(1500)

    def untaught(*arguments: object, **options: object) -> object:
        return train(*arguments, **options | {"clock": Clock(1e-9), "start": None})

    monkeypatch.setattr(_distil, "train_network", untaught)
    tried = TabularModel(list(TARGETS), settings=LOOSE).fit(table)
    monkeypatch.setattr(model_module, "distil", lambda _, __, ___, judged, *____, **_____: judged)
    plain = TabularModel(list(TARGETS), settings=LOOSE).fit(table)
    assert not any(part["distilled"]["admitted"] for part in tried.metrics_["tasks"].values())
    assert tried.metrics_["artefact"] == plain.metrics_["artefact"]
    for name, part in plain.metrics_["tasks"].items():
        found = tried.metrics_["tasks"][name]
        assert {key: found[key] for key in part if key != "candidates"} == {
            key: part[key] for key in part if key != "candidates"
        }
        assert part["candidates"].items() <= found["candidates"].items()
    assert tried.predict(table.head(20)).equals(plain.predict(table.head(20)))


def test_no_time_and_nothing_to_do_are_said_or_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_distil, "make_lessons", lambda *_, **__: pytest.fail("it was taught"))
    state, none = {"weight": torch.zeros(10)}, np.array([])
    network = SimpleNamespace(trained=SimpleNamespace(best=SimpleNamespace(joint_state=state)), states={"a": state})
    for size, served, notes in ((41, "shared", 0), (40, "own_lightgbm", 0), (41, "own_lightgbm", 1)):
        trees = SimpleNamespace(to_bytes=lambda size=size: bytes(size))
        found = Candidates(np.array([], dtype=np.int64), networks={"": network}, trees={"a": trees})
        shares = {served: {served: 1.0}}
        judged = [Judged(KINDS[0], none, none, 0, {}, shares, {}, "own_lightgbm", Comparison(0.0, 0.0, 0.0), served)]
        assert _distil.distil(None, found, None, judged, None, clock=Clock(0.5), emit=pytest.fail) == judged
        assert len(found.notes) == notes
    assert "a longer time limit" in found.notes[0]


def test_where_the_choose_rows_could_not_tell_nothing_is_taught() -> None:
    """An interval of ten percent each way: a student as good as what serves would never be let in."""
    none = np.array([])
    wide = Judged(
        KINDS[0], none, none, 0, {}, {}, {}, "own_lightgbm", Comparison(0.0, -10.0, 10.0), "own_lightgbm"
    )  # fmt: skip
    assert not _distil._could_be_proven(wide, 0.5)
    assert _distil._could_be_proven(wide, 8.0)
    assert _distil._could_be_proven(replace(wide, guard=Comparison(-20.0, -21.0, -19.0)), 0.5)
    assert not _distil._could_be_proven(replace(wide, guard=Comparison(np.nan, np.nan, np.nan)), 0.5)


def test_nothing_is_taught_for_want_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_distil, "make_lessons", lambda *_, **__: pytest.fail("it was taught"))
    none = np.array([])
    network = SimpleNamespace(trained=SimpleNamespace(best=SimpleNamespace(joint_state={"weight": torch.zeros(10)})))
    trees = SimpleNamespace(to_bytes=lambda: bytes(100))
    found = Candidates(np.array([], dtype=np.int64), networks={"": network}, trees={"a": trees})
    shares = {"own_lightgbm": {"own_lightgbm": 1.0}}
    guard = Comparison(0.0, -10.0, 10.0)
    judged = [Judged(KINDS[0], none, none, 0, {}, shares, {}, "own_lightgbm", guard, "own_lightgbm")]
    judge = SimpleNamespace(rules=SimpleNamespace(margin=0.5))
    assert _distil.distil(None, found, judge, judged, None, clock=Clock(None), emit=pytest.fail) == judged
    assert "on so few choose rows" in found.notes[0]
