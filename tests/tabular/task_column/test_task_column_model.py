"""One target and a column of tasks: who learns it, what a new task gets, and what is refused."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from motet import RequestError
from motet.bench import SynthSettings, synthesise
from motet.tabular import TaskColumnModel
from motet.tabular.task_column import _learners as learners
from motet.tabular.task_column._table import owners_of, read_task_table

APART = SynthSettings(
    form="long", tasks=6, outliers=2, rows=1500, features=5, correlation=0.95, degree=(2,), noise=0.05
)


@pytest.fixture(scope="module")
def schools() -> pl.DataFrame:
    """Four schools that agree and two that agree with each other; a tenth of the scores are missing."""
    frame = synthesise(APART, seed=1)[0].drop("split").rename({"task": "school", "label": "score"})
    gone = pl.Series(np.arange(frame.height) % 10 == 0)
    return frame.with_columns(score=pl.when(gone).then(None).otherwise("score"))


@pytest.fixture(scope="module")
def model(schools: pl.DataFrame) -> TaskColumnModel:
    return TaskColumnModel("score", task_column="school", learners=("robust",), seed=1).fit(schools)


def test_sharing_serves_where_it_is_proven_better_and_names_who_stands_apart(model: TaskColumnModel) -> None:
    assert model.served_by_ == "robust"
    assert model.metrics_["learners"]["robust"]["choose_ci95"][0] > 0
    assert model.metrics_["gain_percent"] > 5
    assert {reading.task for reading in model.outliers()} == {"task_5", "task_6"}
    assert set(model.metrics_["tasks"]) == {f"task_{number}" for number in range(1, 7)}
    assert sum(part["rows"] for part in model.metrics_["tasks"].values()) == model.metrics_["rows"]["test"]


def test_the_score_that_it_reports_is_the_score_of_its_predictions(
    model: TaskColumnModel, schools: pl.DataFrame
) -> None:
    ready = read_task_table(schools, "score", "school", split=None, split_column=None, roles={}, seed=1)
    rows = ready.labelled("test")
    found = model.predict(schools[rows])["score"].to_numpy()
    rmse = np.sqrt(np.mean((found - schools["score"].to_numpy()[rows]) ** 2))
    assert rmse == pytest.approx(model.metrics_["learners"]["robust"]["test"], rel=1e-4)


def test_each_task_has_its_share_of_every_part(schools: pl.DataFrame) -> None:
    ready = read_task_table(schools, "score", "school", split=None, split_column=None, roles={}, seed=1)
    for name in np.unique(ready.encoded.owners):
        counts = [int((ready.encoded.owners[getattr(ready.prepared.split, part)] == name).sum())
                  for part in ("train", "stop", "choose", "test")]  # fmt: skip
        assert counts == pytest.approx([160, 25, 25, 40], abs=2)
    assert "__part__" not in ready.prepared.encoder.columns
    assert ready.encoded.without.categories.shape[1] == ready.encoded.with_task.categories.shape[1] - 1


def test_nobody_is_called_an_outlier_without_proof(schools: pl.DataFrame) -> None:
    """Labels without any signal: whatever the trees make of them, no interval lies above zero."""
    noise = schools.with_columns(score=pl.Series(np.random.default_rng(0).normal(size=schools.height)))
    model = TaskColumnModel("score", task_column="school", learners=("robust",)).fit(noise)
    model.readings_ = [replace(reading, outlier=True) for reading in model.readings_]
    assert model.outliers() == []


def test_a_new_task_and_a_missing_one_get_the_common_part_and_it_is_said(
    model: TaskColumnModel, schools: pl.DataFrame
) -> None:
    rows = schools.head(6).with_columns(school=pl.Series(["task_1", "new", None, "task_2", "new", "task_5"]))
    found = model.predict(rows)["score"].to_numpy()
    (note,) = model.notes_
    assert note.startswith("3 of 6 rows belong to tasks that were not learned ('(none)', 'new'); they get what")
    every = [
        model.predict(rows.with_columns(school=pl.lit(f"task_{number}")))["score"].to_numpy() for number in range(1, 7)
    ]
    assert model.notes_ == []
    assert found[1] == pytest.approx(np.mean(every, axis=0)[1])
    assert found[0] == every[0][0]


def test_a_saved_model_answers_alike(model: TaskColumnModel, schools: pl.DataFrame, tmp_path) -> None:
    model.save(tmp_path / "model")
    again = TaskColumnModel.load(tmp_path / "model")
    assert again.predict(schools).equals(model.predict(schools))
    assert again.metrics_ == model.metrics_
    assert again.outliers() == model.outliers()


@pytest.mark.parametrize("name", ["embedding", "heads"])
@pytest.mark.parametrize("kind", ["regression", "multiclass"])
def test_networks_learn_tasks_apart_and_answer_for_new_ones(name: str, kind: str, tmp_path) -> None:
    settings = SynthSettings(
        form="long", tasks=2, outliers=1, rows=500, features=2, correlation=0.9, degree=(1,), kinds=(kind,), noise=0.05
    )
    frame, _ = synthesise(settings, seed=0)
    ready = read_task_table(frame, f"label:{kind}", "task", split="given", split_column="split", roles={}, seed=0)
    budget = learners.Budget(learners.Clock(), 0, 1, 8)
    learner = learners.LEARNERS[name].fit(ready, budget)
    rows = ready.labelled("test")
    estimates, targets = learner.estimate(ready.encoded.take(rows)), ready.targets(rows)
    found = ready.task.metrics(estimates, targets)
    assert found["r2"] > 0.6 if kind == "regression" else found["macro_roc_auc"] > 0.8
    encoded = ready.encoded.take(rows)
    new = learners.Encoded(encoded.with_task, encoded.without, np.full(len(rows), "new"))
    assert learner.estimate(new).shape == estimates.shape
    document, tensors = learner.to_files()
    again = type(learner).from_files(ready.task, document, tensors)
    np.testing.assert_array_equal(again.estimate(encoded), estimates)


def test_heads_of_an_unknown_task_are_the_mean_of_all(schools: pl.DataFrame) -> None:
    ready = read_task_table(schools.head(300), "score", "school", split=None, split_column=None, roles={}, seed=0)
    heads = learners.Heads.fit(ready, learners.Budget(learners.Clock(), 0, 1, 1))
    encoded = ready.encoded.take(np.arange(5))

    def asked(name: str) -> np.ndarray:
        return heads.estimate(learners.Encoded(encoded.with_task, encoded.without, np.full(5, name)))

    known = [asked(f"task_{number}") for number in range(1, 7)]
    assert asked("new") == pytest.approx(np.mean(known, axis=0), rel=1e-5)
    assert np.ptp(known, axis=0).min() > 0


def test_classes_have_names_and_probabilities() -> None:
    frame, _ = synthesise(SynthSettings(form="long", tasks=3, rows=300, features=2, kinds=("binary",)))
    model = TaskColumnModel("label:binary", task_column="task", learners=(), split_column="split").fit(frame)
    found = model.predict_proba(frame)
    assert found.columns == ["False", "True"]
    assert found.sum_horizontal().to_numpy() == pytest.approx(1.0)
    assert (model.predict(frame)["label"].to_numpy() == (found["True"].to_numpy() > 0.5)).all()


def test_whole_numbers_name_tasks_also_where_a_gap_made_them_floats() -> None:
    assert owners_of(pl.DataFrame({"shop": [3, None, 12]}), "shop").tolist() == ["3", "(none)", "12"]
    assert owners_of(pl.DataFrame({"shop": [3.0, float("nan"), 12.0]}), "shop").tolist() == ["3", "(none)", "12"]


def test_a_task_without_labels_and_rows_without_a_task_are_told(schools: pl.DataFrame) -> None:
    frame = schools.head(400).with_columns(
        score=pl.when(pl.col("school") == "task_3").then(None).otherwise("score"),
        school=pl.when(pl.int_range(400) < 30).then(None).otherwise("school"),
    )
    model = TaskColumnModel("score", task_column="school", learners=()).fit(frame)
    assert any("30 rows have no 'school'; together they are a task of their own" in note for note in model.notes_)
    assert any("1 tasks have no labelled train row ('task_3')" in note for note in model.notes_)
    assert model.predict(frame)["score"].null_count() == 0


def test_two_seconds_are_enough_to_answer(schools: pl.DataFrame) -> None:
    model = TaskColumnModel("score", task_column="school", learners=("robust",), time_limit=0.2).fit(schools)
    assert np.isfinite(model.predict(schools)["score"].to_numpy()).all()


WRONG = [
    ({"task_column": "scool"}, r"no column 'scool' that says each row's task\. Did you mean 'school'\?"),
    ({"task_column": "score"}, r"'score' was given as the task column and as the target.*Name another"),
    ({"task_column": "x1"}, r"holds broken numbers such as .*names or whole numbers were expected"),
    ({"task_column": "row"}, r"'row' has 1500 different values in 1500 rows.*Name a column whose values repeat"),
    ({"task_column": "school", "learners": ("robus",)}, r"no learner 'robus'\. Did you mean 'robust'\?"),
    ({"task_column": "school", "roles": {"x9": "number"}}, r"no column 'x9'"),
]


@pytest.mark.parametrize(("settings", "words"), WRONG, ids=[str(case[0]) for case in WRONG])
def test_what_cannot_be_is_refused(schools: pl.DataFrame, settings: dict, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        TaskColumnModel("score", **settings).fit(schools.with_row_index("row"))


def test_an_unfitted_model_and_a_number_without_classes_say_so(model: TaskColumnModel, schools: pl.DataFrame) -> None:
    with pytest.raises(RequestError, match=r"not fitted.*Call fit first"):
        TaskColumnModel("score", task_column="school").predict(schools)
    with pytest.raises(RequestError, match=r"of kind regression, which has no classes. Use predict"):
        model.predict_proba(schools)
