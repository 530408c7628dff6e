"""The guard of a merge: intervals that are known otherwise, and which expert a task is compared with."""

from pathlib import Path

import numpy as np
import pytest

from motet.merge import compare_with_experts
from motet.merge._candidates import find_owners, scored


def rows(seed: int, count: int = 400) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(count)


def test_the_interval_is_that_of_a_paired_mean():
    """Of many rows: the mean difference and 1.96 of its standard errors, whatever the models have in common."""
    expert, change = 50 * rows(0), rows(1) - 0.4
    (found,) = compare_with_experts({"a": expert + change}, {"a": expert}, resamples=8000)
    error = change.std(ddof=1) / np.sqrt(400)
    assert found.difference == pytest.approx(change.mean())
    assert found.low == pytest.approx(change.mean() - 1.96 * error, abs=0.1 * error)
    assert found.high == pytest.approx(change.mean() + 1.96 * error, abs=0.1 * error)
    assert (found.rows, found.verdict) == (400, "worse")
    assert found.merged - found.expert == pytest.approx(found.difference)


def test_few_rows_widen_the_interval_to_student_s():
    change = rows(2, 20)
    (found,) = compare_with_experts({"a": change}, {"a": np.zeros(20)}, resamples=20000)
    # Student's 97.5% point with 19 degrees of freedom, from a table; the percentiles shrink by √(19/20) and are moved.
    half = 2.093 * change.std(ddof=1) / np.sqrt(20)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.06)
    (none,) = compare_with_experts({"a": change[:19]}, {"a": np.zeros(19)})
    assert np.isnan(none.low)
    assert none.verdict == "not proven"
    assert none.document()["ci95"] is None


def test_the_verdict_follows_the_margin():
    right = np.ones(1000)
    same = compare_with_experts({"a": right, "b": right}, {"a": right, "b": right})
    assert [(one.low, one.high, one.verdict) for one in same] == [(0.0, 0.0, "not worse")] * 2
    lost = right.copy()
    lost[:3] = 0.0
    verdicts = {
        margin: compare_with_experts({"a": lost}, {"a": right}, margin=margin)[0].verdict for margin in (0.1, 5)
    }
    assert verdicts == {0.1: "not proven", 5: "not worse"}
    lost[:100] = 0.0
    assert compare_with_experts({"a": lost}, {"a": right}, margin=5)[0].verdict == "worse"
    (low,) = compare_with_experts({"a": -right}, {"a": -2 * right})
    assert low.margin == pytest.approx(0.01)


def test_it_is_the_same_again_and_in_any_order():
    merged, experts = {"a": rows(3), "b": rows(4)}, {"a": rows(5), "b": rows(6)}
    first = compare_with_experts(merged, experts, seed=1)
    assert compare_with_experts(merged, dict(reversed(experts.items())), seed=1) == first[::-1]
    assert compare_with_experts(merged, experts, seed=2) != first


def test_few_false_alarms():
    """Of 400 models that are as good as their experts, some 2.5% are called worse."""
    draw = np.random.default_rng(0)
    names = [str(number) for number in range(400)]
    zeros = {name: np.zeros(60) for name in names}
    found = compare_with_experts({name: draw.standard_normal(60) for name in names}, zeros, resamples=400)
    assert 2 <= sum(one.verdict == "worse" for one in found) <= 20


@pytest.mark.parametrize(
    ("merged", "experts", "message"),
    [
        ({"a": [1.0]}, {"b": [1.0]}, r"tasks \['a'\] arrived for the merged model and \['b'\].*Score both"),
        ({}, {}, "at least one"),
        ({"a": [1.0]}, {"a": [1.0, 2.0]}, "1 rows with the merged model and 2.*same rows"),
        ({"a": [1.0, np.nan]}, {"a": [1.0, 2.0]}, "'a' got row scores of NaN.*Return a list"),
        ({"a": [[1.0]]}, {"a": [1.0]}, r"row scores of shape \(1, 1\)"),
        ({"a": ["good"]}, {"a": [1.0]}, "'a' got row scores"),
    ],
)
def test_wrong_requests(merged, experts, message):
    with pytest.raises(ValueError, match=message):
        compare_with_experts(merged, experts)


def test_a_margin_and_resamples_have_their_ranges():
    for options in ({"margin": -1}, {"margin": np.nan}, {"resamples": 10}):
        with pytest.raises(ValueError, match=r"margin of 0 or more and at least 100 resamples.*defaults"):
            compare_with_experts({"a": [1.0]}, {"a": [1.0]}, **options)


@pytest.mark.parametrize(
    ("tasks", "experts", "owners"),
    [
        (["mail", "reviews"], ["reviews.safetensors", "b/mail"], {"mail": 1, "reviews": 0}),
        (["mail"], ["reviews.safetensors", "v1.2/mail-v1.2"], None),
        (["one", "two"], ["a.safetensors", "b.safetensors"], {"one": 0, "two": 1}),
        (["model", "two"], ["a/model", "b/model"], {"model": 0, "two": 1}),
        (["mail", "two"], ["mail", "reviews"], None),
        ([], ["a", "b", "c"], {}),
    ],
)
def test_a_task_s_expert_is_found_by_name_or_by_place(tasks, experts, owners):
    paths = [Path(expert) for expert in experts]
    if owners is None:
        with pytest.raises(ValueError, match=r"Row scores of the tasks.*Rename the tasks"):
            find_owners(tasks, paths)
    else:
        assert find_owners(tasks, paths) == owners


def test_the_forms_of_a_score():
    assert scored("m", 0.5).document() == {"model": "m", "score": 0.5, "tasks": {}}
    mixed = scored("m", {"a": [True, False, False, True], "b": np.float32(0.25), "c": np.array([1.0, 0.0])})
    assert mixed.tasks == {"a": 0.5, "b": 0.25, "c": 0.5}
    assert mixed.score == pytest.approx(1.25 / 3)
    assert {task: found.tolist() for task, found in mixed.rows.items()} == {"a": [1, 0, 0, 1], "c": [1, 0]}
    for wrong in (None, {}, {"a": "good"}, {"a": None}, [0.5, 0.5], float("nan")):
        with pytest.raises(ValueError, match=r"scoring function gave.*Return one float"):
            scored("m", wrong)
