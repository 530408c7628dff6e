"""The report on a run with a task column, and the sections that other commands' files fill."""

import copy
import json

import pytest
import schools_run
from report_page import Page

from motet.report import write_report


@pytest.fixture
def about():
    return copy.deepcopy(schools_run.ABOUT)


@pytest.fixture
def metrics():
    return copy.deepcopy(schools_run.METRICS)


def page_of(run) -> Page:
    page = Page(write_report(run).read_text(encoding="utf-8"))
    assert {address[1:] for address in page.addresses} <= set(page.ids)
    assert len(set(page.ids)) == len(page.ids)
    return page


def sections(page: Page) -> list[str]:
    return [value["id"] for name, value in page.tags if name == "section"]


def test_the_sections_are_those_of_tasks(build):
    page = page_of(build([]))
    assert sections(page) == ["verdict", "together", "targets", "each", "apart", "curves", "schema", "cost", "notes"]
    assert page.count("script") == 0


@pytest.mark.parametrize(
    "words",
    [
        "5 tasks of school, one target: score. Of all models for all tasks, robust boosting over tasks stands;",
        "it serves 2 of them. Served by their own models: east. By the mean of both: west.",
        "Without labels to learn from, and served by what the others have in common: new.",
        "Over all test rows rmse is 2.750; each task's own model has 3.100 (gain +11.3 % (+7.00 to +15.0)),",
        "LightGBM on all rows 2.850 (gain +3.50 %).",
        "Of 2 tasks with 20 test rows or more none is worse off. The other 3 have too few to tell one by one.",
        "robust boosting over tasks2.740+4.20 % (+1.10 to +7.20)stands for all tasks",
        "what is served, task by task2.750",
        "east240604.0002.0002.0000.00 % (0.00 to 0.00)own LightGBMworse: own model kept",
        "not worse, by 2 tasks together",
        "new034.000–2.700–what the tasks have in commonno labels to learn from",
        "On the choose rows of 2 tasks together the shared model's gain against the own LightGBM was +6.00 %",
        "But half of each was found not worse than the own models, so the mean of the shared and the own model",
        "east24097+12.5 %",
    ],
)
def test_the_page_says(build, words):
    assert words in page_of(build([])).text


def test_a_task_that_came_out_worse_is_in_the_verdict_and_one_with_three_rows_is_not(build, metrics):
    metrics["tasks"]["north"] |= {"motet": 3.3, "gain_percent": -10.0, "ci95": [-16.0, -4.0]}
    metrics["tasks"]["south"] |= {"motet": 9.0}
    text = page_of(build([])).text
    assert "Needs attentionnorth is served by the shared model and came out worse than its own model" in text
    assert "none is worse off" not in text
    assert "south is served" not in text


def test_the_card_loads_the_model_as_it_can_be_loaded(build):
    run = build([])
    write_report(run)
    card = (run / "card.md").read_text()
    assert "TaskColumnModel.load('run')" in card
    assert "import motet.tabular, polars" in card
    assert "      value: 2.1" in card  # the metrics of what is served, not of one learner
    assert "own networks" not in card


def test_two_hundred_tasks_stay_a_small_page(build, metrics):
    metrics["tasks"] = {f"t{number}": schools_run.school(gain_percent=float(number)) for number in range(200)}
    run = build([])
    page = page_of(run)
    assert "The figure shows the 20 lowest and the 20 highest gains of 200." in page.text
    assert (run / "report.html").stat().st_size < 1_000_000


def test_effects_and_slices_are_drawn_where_commands_left_them(build):
    run = build([])
    (run / "effects.json").write_text(json.dumps(schools_run.EFFECTS))
    (run / "slices.json").write_text(json.dumps(schools_run.SLICES))
    page = page_of(run)
    assert sections(page)[4:8] == ["apart", "effects", "slices", "curves"]
    labels = [found["aria-label"] for name, found in page.tags if name == "svg"]
    assert [label for label in labels if "gain" not in label and "served" not in label] == [
        "Feature effects on score", "Feature effects on east", "Scores of score by town"
    ]  # fmt: skip
    for words in (
        "rows of held.parquet: right of zero, the model needs the feature.",
        "The ranking may not be believed: losing the least important quarter of the features hurt more.",
        "was not checked: add --check to motet effects.",
        "hours1.2501.000 to 1.50090.0",
        "x<y",
        "not defined",
        "It is worst where town is Ulm, 0.5 worse than on the other rows, which is more than luck explains.",
        "Jena0––––",
    ):
        assert words in page.text
    assert "Shapley" not in page.text


def test_how_far_features_move_the_answers_is_a_table_with_its_own_verdict(build):
    run = build([])
    moved = [
        {"target": "score", "feature": "hours", "mean_shap": 2.5, "share": 0.8, "unit": "estimate"},
        {"target": "score", "feature": "noise", "mean_shap": 0.625, "share": 0.2, "unit": "estimate"},
        {"target": "east", "feature": "hours", "mean_shap": 1.5, "share": 1.0, "unit": "score"},
    ]
    checks = [{"target": "score", "verdict": "supported"}]
    document = schools_run.EFFECTS | {"attributions": moved, "attribution_checks": checks}
    (run / "effects.json").write_text(json.dumps(document))
    page = page_of(run)
    for words in ("in the unit of the estimate, sampled", "in the unit of the trees' score, exact",
                  "This ranking is supported", "hours2.50080.0", "noise0.62520.0"):  # fmt: skip
        assert words in page.text


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 2, "effects": [1]}', '{"format": 1, "effects": 3, "by": 3}'])
def test_files_that_say_nothing_are_left_out(build, text):
    run = build([])
    for name in ("effects.json", "slices.json"):
        (run / name).write_text(text)
    assert not {"effects", "slices"} & set(sections(page_of(run)))


@pytest.mark.parametrize("gone", ["overall", "learners", "readings", "rows", "guard", "candidates"])
def test_what_is_missing_leaves_gaps_only(build, about, metrics, gone):
    if gone == "overall":
        metrics["overall"] = {"kind": "regression", "metric": "rmse"}
    for document in (about, metrics, *metrics["tasks"].values()):
        if gone != "overall":
            document.pop(gone, None)
    about["notes"] = ["a note"]
    text = page_of(build([])).text
    assert "None" not in text
    assert "nan" not in text
