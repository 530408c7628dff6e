"""Each verdict that a run can get, at the top of the page."""

import pytest
from flights_run import binary, regression

from motet.report._read import read_run
from motet.report._results import read_results
from motet.report._verdict import judge


@pytest.fixture
def verdict(build):
    def of_run():
        run = read_run(build())
        return judge(run, read_results(run.metrics))

    return of_run


NO_HARM = "No target is worse than its own model by more than the margin (0.5 % of the score)."


def test_all_is_well(verdict, metrics):
    metrics["tasks"] = {"a": regression(), "b": regression()}
    found = verdict()
    assert found.good
    assert found.sentences == ["2 targets. The shared model serves all 2.", NO_HARM]
    assert found.warnings == found.leaks == []


def test_own_models_serve_all(verdict, metrics):
    metrics["tasks"] = {"a": binary()}
    assert verdict().sentences == [
        "1 target. The shared model serves none of them. Served by its own model: `a`.",
        NO_HARM,
    ]


def test_a_blend_is_named_as_what_it_is(verdict, metrics):
    metrics["tasks"] = {
        "a": regression(served_by="blend") | {"gain_percent": -4.0, "ci95": [-6.0, -2.0]},
        "b": regression(),
        "c": binary(),
    }
    found = verdict()
    assert found.sentences[0] == (
        "3 targets. Served by a blend of the shared and own models: `a`. By the shared model alone: `b`. "
        "By their own models: `c`."
    )
    assert "`a` is served by the blend of the candidates and came out worse" in found.warnings[0]


@pytest.mark.parametrize(
    ("ends", "chance"), [([-3.0, -1.2], ""), ([-3.0, 0.1], " The interval does not exclude that this is chance.")]
)
def test_a_shared_model_that_is_worse_on_the_test_rows(verdict, metrics, ends, chance):
    metrics["tasks"]["dep_delay"] |= {"gain_percent": -2.1, "ci95": ends}
    found = verdict()
    assert not found.good
    assert NO_HARM not in found.sentences
    [warning] = found.warnings
    assert warning.startswith("`dep_delay` is served by the shared model and came out worse than its own model by more")
    assert "the margin of 0.5 % on the test rows: −2.10 % (−3.00 to " in warning
    assert warning.endswith(f").{chance}")


def test_a_loss_inside_the_margin_is_no_harm_but_a_wide_interval_is_said(verdict, metrics):
    metrics["tasks"]["dep_delay"] |= {"gain_percent": -0.4, "ci95": [-0.9, 0.1]}
    found = verdict()
    assert NO_HARM in found.sentences
    assert found.sentences[2].startswith("For `dep_delay` the interval on the test rows reaches below the margin")


@pytest.mark.parametrize("missing", ["guard", "single_task", "gain_percent"])
def test_a_task_that_was_not_compared_is_not_called_safe(verdict, metrics, missing):
    metrics["tasks"]["dep_delay"][missing] = None
    found = verdict()
    assert not found.good
    assert NO_HARM not in found.sentences
    assert "`dep_delay`: the shared model serves without a comparison" in found.warnings[0]
    assert "--time-limit" in found.warnings[0]


@pytest.mark.parametrize("said", ["worse", "not proven"])
def test_a_shared_model_that_serves_against_the_guard(verdict, metrics, said):
    metrics["tasks"]["dep_delay"]["guard"]["verdict"] = said
    found = verdict()
    assert NO_HARM not in found.sentences
    assert found.warnings == ["`dep_delay`: the shared model serves although the guard did not find it harmless."]


def test_targets_that_are_not_predictable_are_named(verdict, metrics):
    metrics["tasks"]["dep_delay"]["predictable"] = False
    assert verdict().warnings == [
        "`dep_delay` is not predictable from these columns: the served model does not beat a constant."
    ]


def test_several_that_are_not_predictable_share_a_sentence(verdict, metrics):
    metrics["tasks"] = {f"t{index}": regression(predictable=False) for index in range(14)}
    [warning] = verdict().warnings
    assert warning.startswith("`t0`, `t1`")
    assert "`t11` and 2 more are not predictable" in warning


def test_a_target_without_a_score(verdict, metrics):
    metrics["tasks"]["cancelled"] |= {"motet": None, "predictable": None}
    assert verdict().warnings[0].startswith("`cancelled` has no score on the test rows")


def test_leaks_are_named_with_what_to_do(verdict, about):
    about["leaks"] = [{"feature": "dep time", "task": "late15", "metric": "roc_auc", "score": 0.9994, "reason": ""}]
    found = verdict()
    assert not found.good
    [leak] = found.leaks
    assert leak.startswith(
        "`dep time` alone predicts `late15` almost perfectly (roc_auc 0.9994). If it is not known at"
    )
    assert leak.endswith("drop it and fit again: `--ignore 'dep time'`")


def test_many_losses_do_not_fill_the_page(verdict, metrics):
    metrics["tasks"] = {f"t{index}": regression(gain_percent=-3.0) for index in range(9)}
    found = verdict().warnings
    assert len(found) == 7
    assert found[-1] == "So did 3 more, which the table shows: `t6`, `t7` and `t8`."
