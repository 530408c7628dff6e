"""The card's header parses as YAML, its results are the run's, and it gives away no local path."""

import json

import pytest
from flights_run import binary, regression

from motet.report import write_report

yaml = pytest.importorskip("yaml")


def card_of(run):
    write_report(run)
    text = (run / "card.md").read_text(encoding="utf-8")
    _, header, body = text.split("---\n", 2)
    return yaml.safe_load(header), body


def test_the_header(build):
    header, _ = card_of(build())
    assert header["license"] == "unknown"
    assert header["library_name"] == "motet"
    assert header["pipeline_tag"] == "tabular-regression"
    assert {"motet", "tabular-regression", "tabular-classification"} <= set(header["tags"])
    [model] = header["model-index"]
    assert model["name"] == "run"
    found = {result["task"]["name"]: result for result in model["results"]}
    assert list(found) == ["dep_delay", "arr_delay", "cancelled", "bucket"]
    assert found["cancelled"]["task"]["type"] == "tabular-classification"
    assert found["cancelled"]["dataset"] == {"type": "flights.parquet", "name": "flights.parquet", "split": "test"}
    # The main metric is the served model's, the others come from the same candidate.
    assert [(metric["type"], metric["value"]) for metric in found["cancelled"]["metrics"]] == [
        ("roc_auc", 0.9531),
        ("log_loss", 0.078),
    ]


@pytest.mark.parametrize(
    "words",
    [
        "| `dep_delay` | `rmse` ↓ | 40.21 min | 34.50 min | 34.01 min | +1.42 % (+1.10 to +1.75) | shared model |",
        "No target is worse than its own model by more than the margin (0.5 % of the score).",
        "motet predict run new_rows.parquet -o predictions.parquet",
        "model = motet.load('run')",
        "predictions = model.predict(frame)",
        "215,537 train, 33,678 stop, 33,678 choose, 53,883 test (split: random, seed 7)",
        "`dep_delay`: 90 % intervals hold 90.2 % of test rows.",
        "The own networks together got the compute of the shared one",
    ],
)
def test_the_body_says(build, words):
    assert words in card_of(build())[1]


def test_no_local_path_is_published(build):
    run = build()
    card_of(run)
    assert "/home/someone" not in (run / "card.md").read_text(encoding="utf-8")


def test_warnings_are_in_the_card(build, about, metrics):
    metrics["tasks"]["bucket"]["predictable"] = False
    about["leaks"] = [{"feature": "x", "task": "bucket"}]
    _, body = card_of(build())
    assert "> - `bucket` is not predictable from these columns" in body
    assert "> - `x` alone predicts `bucket` almost perfectly." in body


@pytest.mark.parametrize(
    "name", ["a: b", "# x", 'quote " and \\', "tab\tand\nline", "größe ☃", "\u0085\u2028\x7f", "😀", "null", "- x"]
)
def test_any_name_survives_the_header(build, metrics, name):
    metrics["tasks"] = {name: regression()}
    header, body = card_of(build([]))
    assert header["model-index"][0]["results"][0]["task"]["name"] == name
    assert all(line.count(" | ") == 7 for line in body.splitlines() if line.startswith("| ") and "target" not in line)


def test_a_pipe_in_a_name_does_not_break_the_table(build, metrics):
    metrics["tasks"] = {"a|b": regression()}
    assert "| `a\\|b` | `rmse` ↓ |" in card_of(build([]))[1]


@pytest.mark.parametrize("value", [1e-5, 1.5e-7, -3e20, 12345678.0, 0.1])
def test_numbers_stay_numbers(build, metrics, value):
    metrics["tasks"] = {"a": regression(motet=value)}
    header, _ = card_of(build())
    found = header["model-index"][0]["results"][0]["metrics"][0]["value"]
    assert isinstance(found, int | float)
    assert found == pytest.approx(value, rel=1e-5)


def test_a_task_without_a_score_is_left_out_of_the_index(build, metrics):
    metrics["tasks"] = {"a": binary(motet=None)}
    header, body = card_of(build())
    assert header["model-index"] == [{"name": "run", "results": []}]
    assert header["pipeline_tag"] == "tabular-classification"
    assert "| `a` |" in body


def test_a_run_named_with_a_space_is_quoted_for_the_shell(build):
    _, body = card_of(build(name="my run"))
    assert "motet predict 'my run' new_rows.parquet" in body
    assert "motet.load('my run')" in body
    assert json.dumps("my run") not in body
