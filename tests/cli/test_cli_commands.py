"""Each command used rightly: what it writes, what it prints and where, and its exit code."""

import json
from pathlib import Path

import polars as pl
import pytest
from cli_table import TARGETS, files, fit_words, mixed_table

from motet.cli import main

NAMES = [target.split(":")[0] for target in TARGETS]
WHOLE_RUN = {"run.json", "model.safetensors", "metrics.json", "log.jsonl", "report.html", "card.md"}


def strict(text: str) -> dict:
    """One JSON document without NaN, which JSON does not have."""

    def refuse(word: str) -> None:
        message = f"{word} is no JSON"
        raise AssertionError(message)

    return json.loads(text, parse_constant=refuse)


def test_fit_writes_a_whole_run_and_a_table_for_a_person(motet, table_file, tmp_path):
    called = motet(*fit_words(table_file, tmp_path / "run"))
    assert called.code == 0
    assert {path.name for path in (tmp_path / "run").iterdir()} == WHOLE_RUN
    assert strict((tmp_path / "run" / "run.json").read_text())["status"] == "complete"
    for name in NAMES:
        assert name in called.out
    assert called.out.rstrip().endswith(str(Path("run") / "report.html"))


def test_fit_keeps_progress_and_schema_off_standard_output(motet, table_file, tmp_path):
    called = motet(*fit_words(table_file, tmp_path / "run", "--json", targets=TARGETS[:2]))
    assert called.code == 0
    document = strict(called.out)
    assert set(document) == {"run", "report", "metrics", "notes"}
    assert list(document["metrics"]["tasks"]) == NAMES[:2]
    assert document["metrics"] == strict((tmp_path / "run" / "metrics.json").read_text())
    assert "infinite ones count as missing" in called.err
    assert "Training one network for 2 targets" in called.err


def test_fit_takes_every_option(motet, tmp_path, table_file):
    frame = pl.read_parquet(table_file)
    part = ["train"] * 260 + ["validation"] * 70 + ["test"] * 70
    frame.with_columns(part=pl.Series(part)).write_csv(tmp_path / "houses.csv")
    called = motet(*fit_words(
        tmp_path / "houses.csv", tmp_path / "run", "--time-limit", "1m", "--split", "given", "--split-column", "part",
        "--role", "age=category", "--ignore", "noise", "--ignore", "built", "--balance", "equal", "--margin", "2.5",
        "--seed", "3", "--json", targets=("price", "sold"),
    ))  # fmt: skip
    assert called.code == 0
    run = strict((tmp_path / "run" / "run.json").read_text())
    assert (run["seed"], run["time_limit"], run["split"]["how"], run["split"]["test"]) == (3, 60.0, "given", 70)
    assert (run["settings"]["balance"], run["settings"]["margin"], run["settings"]["max_epochs"]) == ("equal", 2.5, 1)
    roles = {column["name"]: column["role"] for column in run["schema"]}
    assert (roles["age"], roles["noise"], roles["built"], roles["part"]) == ("category", "ignored", "ignored", "split")
    assert [task["kind"] for task in run["tasks"]] == ["regression", "binary"]


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_predict_gives_every_target_for_every_row_in_order(motet, finished, table_file, tmp_path, ending):
    output = tmp_path / f"predictions.{ending}"
    called = motet("predict", finished, table_file, "-o", output)
    assert called.code == 0
    assert called.out == f"Wrote 400 rows of {', '.join(NAMES)} to {output}\n"
    found = pl.read_parquet(output) if ending == "parquet" else pl.read_csv(output)
    assert (found.columns, found.height, found.null_count().sum_horizontal().item()) == (NAMES, 400, 0)
    reordered = tmp_path / "reversed.parquet"
    pl.read_parquet(table_file).reverse().write_parquet(reordered)
    assert motet("predict", finished, reordered, "--output", output).code == 0
    again = pl.read_parquet(output) if ending == "parquet" else pl.read_csv(output)
    assert again.reverse()["sold"].to_list() == found["sold"].to_list()


def test_predict_adds_intervals_probabilities_and_kept_columns(motet, finished, table_file, tmp_path):
    output = tmp_path / "predictions.parquet"
    called = motet(
        "predict", finished, table_file, "-o", output, "--intervals", "--probabilities", "--keep", "town",
        "--keep", "built", "--target", "price", "--target", "grade", "--json",
    )  # fmt: skip
    assert called.code == 0
    columns = ["town", "built", "price", "price_low", "price_high", "grade", "grade=a", "grade=b", "grade=c"]
    assert strict(called.out) == {"output": str(output), "rows": 400, "columns": columns}
    found = pl.read_parquet(output)
    assert found.columns == columns
    assert found["town"].to_list() == pl.read_parquet(table_file)["town"].to_list()
    assert (found["price_low"] <= found["price"]).all()
    assert (found["price"] <= found["price_high"]).all()
    chances = found.select("grade=a", "grade=b", "grade=c")
    assert abs(chances.sum_horizontal() - 1.0).max() < 1e-5
    assert chances.min_horizontal().min() >= 0.0


def test_predict_needs_no_labels_and_takes_unseen_values(motet, finished, tmp_path):
    new = mixed_table(50, seed=9).drop(NAMES).with_columns(town=pl.lit("Atlantis"), age=pl.lit(None, pl.Int64))
    new.write_parquet(tmp_path / "new.parquet")
    called = motet("predict", finished, tmp_path / "new.parquet", "-o", tmp_path / "out.csv")
    assert called.code == 0
    assert pl.read_csv(tmp_path / "out.csv").columns == NAMES


def test_evaluate_scores_what_has_labels(motet, finished, tmp_path):
    fresh = mixed_table(200, seed=5)
    fresh.drop("visits").write_parquet(tmp_path / "fresh.parquet")
    called = motet("evaluate", finished, tmp_path / "fresh.parquet", "--json")
    assert called.code == 0
    tasks = strict(called.out)["tasks"]
    assert list(tasks) == ["price", "sold", "grade"]
    for name, found in tasks.items():
        assert found["rows"] == 200 - fresh[name].null_count()
        low, high = found["ci95"]
        assert low <= found["metrics"][found["metric"]] <= high
    assert tasks["sold"]["metrics"]["roc_auc"] > 0.75
    text = motet("evaluate", finished, tmp_path / "fresh.parquet", "--target", "sold")
    assert text.code == 0
    assert "roc_auc" in text.out
    assert "price" not in text.out


def test_report_writes_the_same_files_again(motet, run):
    before = files(run)
    (run / "report.html").unlink()
    (run / "card.md").write_text("spoiled")
    called = motet("report", run)
    assert (called.code, called.out) == (0, f"Report: {run / 'report.html'}\n")
    assert files(run) == before
    called = motet("report", run, "--json")
    assert strict(called.out) == {"report": str(run / "report.html"), "card": str(run / "card.md")}


def test_methods_lists_rooms_with_purpose_and_source(motet):
    everything = motet("methods", "--json")
    assert everything.code == 0
    found = strict(everything.out)["methods"]
    assert {entry["room"] for entry in found} == {"balance", "merge", "sharing", "adapters", "tasks"}
    assert all(entry["summary"] for entry in found)
    balance = strict(motet("methods", "--room", "balance", "--json").out)["methods"]
    assert {entry["name"] for entry in balance} >= {"equal", "uncertainty", "random"}
    assert all(entry["room"] == "balance" and entry["source"] for entry in balance)
    text = motet("methods", "--room", "tasks")
    assert text.code == 0
    assert "quantile" in text.out
    assert "uncertainty" not in text.out


def test_the_same_seed_gives_the_same_predictions_and_another_seed_others(motet, table_file, tmp_path):
    scores = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        asked = fit_words(table_file, tmp_path / name, "--seed", str(seed), "--json", targets=("price", "sold"))
        scores.append(strict(motet(*asked).out)["metrics"]["tasks"])
    assert scores[0] == scores[1]
    assert scores[0] != scores[2]


def test_help_and_version(motet):
    assert motet("--help").code == 0
    for command in ("fit", "predict", "evaluate", "report", "methods"):
        called = motet(command, "--help")
        assert called.code == 0
        assert f"motet {command}" in called.out
    version = motet("--version")
    assert (version.code, version.out) == (0, "motet 0.1.0\n")


def test_main_reads_the_words_of_the_process(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["motet", "--version"])
    assert main() == 0
    assert capsys.readouterr().out.startswith("motet ")
