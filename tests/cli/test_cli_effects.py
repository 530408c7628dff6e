"""`motet effects`, `motet evaluate --by` and `motet predict --cost`: what they print, and what they refuse."""

import json

import polars as pl
import pytest
from cli_table import mixed_table


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    path = tmp_path_factory.mktemp("fresh") / "fresh.parquet"
    mixed_table(300, seed=5).write_parquet(path)
    return path


def test_effects_lists_the_features_of_each_target(motet, finished, fresh):
    called = motet("effects", finished, fresh, "--json", "--repeats", "2", "--max-rows", "200", "--check",
                   "--shap")  # fmt: skip
    assert called.code == 0
    document = json.loads(called.out)
    assert set(document) == {"run", "table", "effects", "checks", "attributions", "attribution_checks"}
    kept = json.loads((finished / "effects.json").read_text())
    assert kept["attributions"] == document["attributions"]
    for target in ("price", "sold"):
        sizes = [row["mean_shap"] for row in document["attributions"] if row["target"] == target]
        assert len(sizes) == 5
        assert sizes == sorted(sizes, reverse=True)
    assert [row["target"] for row in document["attribution_checks"]] == ["price", "sold", "grade", "visits"]
    for target in ("price", "sold", "grade", "visits"):
        found = [row for row in document["effects"] if row["target"] == target]
        assert {row["feature"] for row in found} == {"size", "age", "town", "built", "noise"}
        assert [row["drop"] for row in found] == sorted((row["drop"] for row in found), reverse=True)
    assert [row["target"] for row in document["checks"]] == ["price", "sold", "grade", "visits"]


def test_effects_prints_a_table_and_a_verdict_for_a_person(motet, finished, fresh):
    called = motet("effects", finished, fresh, "--repeats", "1", "--target", "price", "--check", "--shap")
    assert called.code == 0
    assert "mean |SHAP|" in called.out
    assert "By Shapley values: " in called.out
    assert "worse without it by" in called.out
    assert "sold" not in called.out
    assert "The ranking of price" in called.out
    assert "important quarter (difference" in called.out
    plain = motet("effects", finished, fresh, "--repeats", "1", "--target", "price")
    assert "ranking" not in plain.out
    assert "SHAP" not in plain.out


def test_evaluate_by_a_column_scores_each_slice_and_names_the_worst(motet, finished, fresh):
    called = motet("evaluate", finished, fresh, "--by", "town", "--target", "price", "--json")
    assert called.code == 0
    slices = json.loads(called.out)["slices"]
    assert [row["slice"] for row in slices] == ["Bonn", "Jena", "Köln", "Ulm", "(missing)"]
    assert sum(row["rows"] for row in slices) == pl.read_parquet(fresh)["price"].count()
    (worst,) = [row["slice"] for row in slices if row["worst"]]
    text = motet("evaluate", finished, fresh, "--by", "town", "--target", "price")
    assert f"price is worst where town is {worst}: rmse" in text.out


def test_predict_at_a_cost_says_yes_sooner(motet, finished, fresh, tmp_path):
    said = []
    for number, words in enumerate(([], ["--cost", "sold=1:20"])):
        output = tmp_path / f"{number}.parquet"
        assert motet("predict", finished, fresh, "-o", output, *words).code == 0
        said.append((pl.read_parquet(output)["sold"] == "yes").sum())
    assert said[1] > said[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["predict", "--cost", "sold"], "--cost 'sold' was given; NAME=FP:FN was expected"),
        (["predict", "--cost", "sold=1:x"], "NAME=FP:FN was expected"),
        (["predict", "--cost", "=1:2"], "NAME=FP:FN was expected"),
        (["predict", "--cost", "price=1:2"], "only binary targets have a threshold"),
        (["predict", "--cost", "sold=0:0"], "not both zero"),
        (["evaluate", "--by", "twon"], "no column 'twon' to slice by. Did you mean 'town'?"),
        (["effects", "--repeats", "0"], "repeats is 0"),
        (["effects", "--target", "prize"], "Did you mean 'price'?"),
    ],
)
def test_what_cannot_be_is_refused(motet, finished, fresh, tmp_path, words, message):
    output = ["-o", tmp_path / "out.parquet"] if words[0] == "predict" else []
    called = motet(words[0], finished, fresh, *output, *words[1:])
    assert called.code == 2
    assert message in called.err
