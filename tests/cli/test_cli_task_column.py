"""`motet fit --task-column`, and every command that reads its run."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest

from motet.bench import SynthSettings, synthesise
from motet.cli import main


@pytest.fixture(scope="module")
def shops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = SynthSettings(form="long", tasks=3, rows=240, features=2, kinds=("binary",), degree=(1,))
    frame, _ = synthesise(settings)
    path = tmp_path_factory.mktemp("shops") / "shops.parquet"
    frame.drop("split").rename({"task": "shop", "label": "sold"}).write_parquet(path)
    return path


WORDS = ("--target", "sold:binary", "--task-column", "shop")
QUICK = (*WORDS, "--max-epochs", "1", "--time-limit", "5m")


@pytest.fixture(scope="module")
def shop_run(shops, tmp_path_factory):
    """A finished run that only gains what commands leave in it."""
    out = tmp_path_factory.mktemp("shop") / "run"
    assert main(["fit", str(shops), *QUICK, "--out", str(out)]) == 0
    return out


def test_fit_writes_a_whole_run_and_says_what_came_out(motet, shops, tmp_path):
    called = motet("fit", shops, *QUICK, "--out", tmp_path / "run", "--json")
    assert called.code == 0
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "run.json", "model.safetensors", "metrics.json", "log.jsonl", "report.html", "card.md"
    }  # fmt: skip
    document = called.document
    assert set(document) == {"run", "report", "metrics", "readings", "notes"}
    assert set(document["metrics"]["learners"]) == {"pooled", "robust", "embedding", "heads"}
    assert set(document["metrics"]["tasks"]) == {"task_1", "task_2", "task_3"}
    assert [reading["rows"] for reading in document["readings"]] == pytest.approx([51] * 3, abs=1)
    assert "shop  " in called.err  # the schema
    assert "__part__" not in called.err
    again = motet("fit", shops, *WORDS, "--out", tmp_path / "run")
    assert again.code == 2
    assert "holds a finished run, which is never overwritten" in again.err


def test_export_writes_a_graph_of_it(motet, shop_run, shops, tmp_path):
    called = motet("export", shop_run, "-o", tmp_path / "graph", "--table", shops, "--json")
    assert called.code == 0, called.err
    assert called.document["task_column"] == "shop"
    assert called.document["check"]["largest_difference"]["sold"] < 1e-4
    assert {path.name for path in (tmp_path / "graph").iterdir()} == {"model.onnx", "model.json"}


def test_predict_says_whose_answer_a_row_gets(motet, shop_run, shops, tmp_path):
    out = tmp_path / "out.parquet"
    frame = pl.read_parquet(shops).drop("sold").with_columns(shop=pl.lit("new one"))
    frame.write_parquet(tmp_path / "new.parquet")
    called = motet("predict", shop_run, tmp_path / "new.parquet", "-o", out, "--probabilities", "--keep", "shop")
    assert called.code == 0
    assert "240 of 240 rows belong to tasks that were not learned ('new one')" in called.out
    found = pl.read_parquet(out)
    assert found.columns == ["shop", "sold", "sold_served_by", "sold=False", "sold=True"]
    assert found["sold_served_by"].unique().to_list() == ["common"]
    assert motet("predict", shop_run, shops, "-o", out, "--cost", "sold=1:50", "--target", "sold").code == 0
    sooner = pl.read_parquet(out)
    assert set(sooner["sold_served_by"]) <= {"shared", "own_lightgbm", "mean"}
    assert sooner["sold"].sum() > 200  # a false no costs fifty times as much
    refused = motet("predict", shop_run, shops, "-o", out, "--target", "slod")
    assert refused.code == 2
    assert "Did you mean 'sold'?" in refused.err


def test_evaluate_effects_and_slices_reach_the_report(motet, shop_run, shops):
    scores = motet("evaluate", shop_run, shops, "--target", "sold", "--target", "task_2", "--json").document["tasks"]
    assert {name: found["rows"] for name, found in scores.items()} == {"sold": 240, "task_2": 80}
    by_shop = motet("evaluate", shop_run, shops, "--by", "shop", "--json").document["slices"]
    assert [row["slice"] for row in by_shop] == ["task_1", "task_2", "task_3"]
    called = motet("effects", shop_run, shops, "--repeats", "1", "--target", "sold", "--target", "task_1")
    assert called.code == 0
    assert "Kept in the run; its report draws them from now on: motet report" in called.out
    assert {row["target"] for row in json.loads((shop_run / "effects.json").read_text())["effects"]} == {
        "sold",
        "task_1",
    }
    assert motet("report", shop_run).code == 0
    page = (shop_run / "report.html").read_text()
    for words in ("What the features are worth", "Where it is strong and weak", "sold by shop", "All tasks together"):
        assert words in page


def test_slices_by_several_columns_stay_beside_each_other(motet, finished, table_file, tmp_path):
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    for by in ("town", "size"):
        assert motet("evaluate", run, table_file, "--by", by, "--target", "price").code == 0
    assert set(json.loads((run / "slices.json").read_text())["by"]) == {"town", "size"}
    (run / "slices.json").write_text("{")
    assert motet("evaluate", run, table_file, "--by", "town").code == 0
    assert set(json.loads((run / "slices.json").read_text())["by"]) == {"town"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*WORDS, "--sharing", "mmoe"], "--sharing was given with --task-column, which does not read it. Leave one"),
        ([*WORDS, "--balance", "equal"], "--balance was given with --task-column"),
        ([*WORDS, "--target", "x1"], "2 targets were given with --task-column; one was expected"),
        (["--target", "sold", "--task-column", "shp"], "Did you mean 'shop'?"),
        ([*WORDS, "--margin", "200"], "margin is 200.0; a number between 0 and 100"),
    ],
)
def test_a_wrong_request_leaves_nothing(motet, shops, tmp_path, words, message):
    called = motet("fit", shops, *words, "--out", tmp_path / "run")
    assert called.code == 2
    assert message in called.err
    assert not list(tmp_path.iterdir())


def test_an_interrupted_fit_says_how_to_go_on_and_does(motet, shops, tmp_path, monkeypatch):
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("motet.tabular.task_column._training.Own.fit", stop)
        called = motet("fit", shops, *QUICK, "--out", tmp_path / "run")
    assert called.code == 1
    assert "the same command with --resume goes on from there" in called.err
    assert motet("fit", shops, *QUICK, "--out", tmp_path / "run", "--resume").code == 0
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "complete"
