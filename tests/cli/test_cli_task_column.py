"""`motet fit --task-column` and `motet predict` with its run."""

from pathlib import Path

import polars as pl
import pytest

from motet.bench import SynthSettings, synthesise


@pytest.fixture(scope="module")
def shops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = SynthSettings(form="long", tasks=3, rows=240, features=2, kinds=("binary",), degree=(1,))
    frame, _ = synthesise(settings)
    path = tmp_path_factory.mktemp("shops") / "shops.parquet"
    frame.drop("split").rename({"task": "shop", "label": "sold"}).write_parquet(path)
    return path


WORDS = ("--target", "sold:binary", "--task-column", "shop")


def test_fit_and_predict(motet, shops, tmp_path):
    run, out = tmp_path / "run", tmp_path / "out.parquet"
    called = motet("fit", shops, *WORDS, "--out", run, "--max-epochs", 1, "--time-limit", "20s", "--json")
    assert called.code == 0
    document = called.document
    assert set(document["metrics"]["learners"]) == {"pooled", "robust", "embedding", "heads"}
    assert [reading["rows"] for reading in document["readings"]] == pytest.approx([51] * 3, abs=1)
    frame = pl.read_parquet(shops).drop("sold").with_columns(shop=pl.lit("new one"))
    frame.write_parquet(tmp_path / "new.parquet")
    called = motet("predict", run, tmp_path / "new.parquet", "-o", out, "--probabilities", "--keep", "shop")
    assert called.code == 0
    assert "240 of 240 rows belong to tasks that were not learned ('new one')" in called.out
    assert pl.read_parquet(out).columns == ["shop", "sold", "sold=False", "sold=True"]
    again = motet("fit", shops, *WORDS, "--out", run)
    assert again.code == 2
    assert "is not empty. Name a new folder" in again.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*WORDS, "--sharing", "mmoe"], "--sharing was given with --task-column, which does not read it. Leave one"),
        ([*WORDS, "--target", "x1"], "2 targets were given with --task-column; one was expected"),
        (["--target", "sold", "--task-column", "shp"], "Did you mean 'shop'?"),
    ],
)
def test_a_wrong_request_leaves_nothing(motet, shops, tmp_path, words, message):
    called = motet("fit", shops, *words, "--out", tmp_path / "run")
    assert called.code == 2
    assert message in called.err
    assert not list(tmp_path.iterdir())
