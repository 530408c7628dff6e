"""Tables that are odd, and little time: a clear outcome, and nothing lost."""

import numpy as np
import polars as pl
import pytest
from school_tables import quick_model, schools

from motet import FitSettings, RequestError, TabularModel
from motet.tabular import TaskColumnModel

SMALL = schools(240, num_tasks=3)


def test_one_row_a_task_is_refused_with_another_way():
    alone = SMALL.with_columns(school=pl.int_range(SMALL.height))
    with pytest.raises(RequestError, match=r"240 different values in 240 rows.*Name a column whose values repeat"):
        quick_model().fit(alone)


def test_some_tasks_of_one_row_are_answered_and_told():
    """Wherever the split puts them, they have an answer; those without a train row are common."""
    school = pl.when(pl.int_range(SMALL.height) < 20).then(pl.format("lone{}", pl.int_range(SMALL.height)))
    frame = SMALL.with_columns(school=school.otherwise("school"))
    model = quick_model().fit(frame)
    found = model.predict(frame, sources=True)
    assert found["score"].null_count() == 0
    rows = zip(frame["school"], found["score_served_by"], strict=True)
    common = {owner for owner, source in rows if source == "common"}
    assert common
    assert common == {name for name in frame["school"] if name not in model.tasks_}
    assert any(f"{len(common)} tasks have no labelled train row ('lone" in note for note in model.run_["notes"])


def test_a_task_whose_train_labels_are_all_missing_is_scored_as_what_is_common():
    """Its test rows have labels, so the report can say what the common part is worth there."""
    part = pl.Series([("train", "stop", "choose", "test", "test")[place % 5] for place in range(SMALL.height)])
    gone = (pl.col("school") == "s1") & (pl.col("part") == "train")
    frame = SMALL.with_columns(part=part).with_columns(score=pl.when(gone).then(None).otherwise("score"))
    model = quick_model(split="given", split_column="part").fit(frame)
    task = model.metrics_["tasks"]["s1"]
    assert (task["served_by"], task["train_rows"], task["single_task"], task["guard"]) == ("common", 0, None, {})
    assert task["rows"] > 10
    assert task["motet"] > 0
    assert model.tasks_ == ["s0", "s2"]
    assert any("1 tasks have no labelled train row ('s1')" in note for note in model.notes_)


def test_no_label_at_all_and_one_value_are_refused():
    with pytest.raises(RequestError, match="score"):
        quick_model().fit(SMALL.with_columns(score=pl.lit(None, pl.Float64)))
    with pytest.raises(RequestError, match="score"):
        quick_model().fit(SMALL.with_columns(score=pl.lit(1.0)))


def test_a_missing_task_and_an_empty_name_are_one_task():
    odd = SMALL.with_columns(school=pl.Series([None, "", *SMALL["school"][2:60], *[None] * 40, *SMALL["school"][100:]]))
    model = quick_model().fit(odd)
    assert "42 rows have no 'school'; together they are a task of their own." in model.notes_
    assert "(none)" in model.tasks_
    assert model.predict(odd.head(2), sources=True)["score_served_by"].n_unique() == 1


def test_a_feature_that_copies_the_target_is_called_a_leak():
    model = quick_model().fit(SMALL.with_columns(copy=pl.col("score")))
    assert any("'copy' alone predicts 'score' almost perfectly" in note for note in model.notes_)


def test_tasks_that_are_copies_of_each_other_score_alike():
    twice = pl.concat([SMALL, SMALL.with_columns(school=pl.col("school") + "-copy")])
    model = quick_model().fit(twice)
    assert set(model.tasks_) == {f"s{code}{end}" for code in range(3) for end in ("", "-copy")}
    assert model.predict(twice)["score"].null_count() == 0


def test_targets_that_are_copies_of_each_other_are_told_and_both_served():
    frame = SMALL.drop("school").with_columns(again=pl.col("score"))
    model = TabularModel(["score", "again"], settings=FitSettings(max_epochs=2, threads=1)).fit(frame)
    assert "'again' has the same labels as 'score' wherever both have one" in " ".join(model.run_["notes"])
    found = model.predict(frame)
    assert set(found.columns) == {"score", "again"}
    assert not {"score", "again"} & set(model.served_.encoder.columns)
    assert np.corrcoef(found["score"], found["again"])[0, 1] > 0.95


def test_two_seconds_for_everything_give_a_whole_run_that_says_what_was_left_out(tmp_path):
    many = schools(1200, num_tasks=150)
    model = TaskColumnModel("score:regression", task_column="school", time_limit=2.0).fit(many, out=tmp_path / "run")
    assert set(model.metrics_["learners"]) >= {"pooled"}
    tried = {*model.metrics_["learners"], "own_lightgbm"}
    told = [note for note in model.notes_ if note.startswith("The time limit left none for")]
    assert len(told) == len({"pooled", "robust", "embedding", "heads", "own_lightgbm"} - tried)
    again = TaskColumnModel.load(tmp_path / "run")
    assert np.isfinite(again.predict(many)["score"].to_numpy()).all()


def test_time_that_is_over_leaves_the_learners_that_must_be_there():
    model = quick_model(learners=("robust", "embedding", "heads"), time_limit=1e-6).fit(SMALL)
    assert set(model.metrics_["learners"]) == {"pooled"}
    assert sum(note.startswith("The time limit left none for") for note in model.notes_) == 3
    assert model.predict(SMALL)["score"].null_count() == 0
