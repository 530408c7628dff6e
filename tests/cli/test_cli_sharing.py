"""`motet fit --sharing`, and the list of architectures."""

import json
from pathlib import Path

from motet.models.sharing import methods as architectures


def test_the_room_is_listed_with_its_sources(motet):
    found = json.loads(motet("methods", "--room", "sharing", "--json").out)["methods"]
    assert [entry["name"] for entry in found] == sorted(architectures())
    assert all(entry["room"] == "sharing" and entry["summary"] and entry["source"] for entry in found)


def test_a_fit_takes_an_architecture_by_name(motet, table_file, tmp_path: Path):
    out = tmp_path / "run"
    called = motet(
        "fit", table_file, "--target", "price:regression", "--target", "sold:binary", "--out", out, "--sharing", "mmoe",
        "--max-epochs", "1", "--json",
    )  # fmt: skip
    assert called.code == 0, called.err
    assert json.loads((out / "run.json").read_text())["settings"]["sharing"] == "mmoe"


def test_a_wrong_name_gets_the_nearest(motet, table_file, tmp_path: Path):
    called = motet("fit", table_file, "--target", "price", "--out", tmp_path / "run", "--sharing", "mmeo")
    assert called.code == 2
    assert "no sharing architecture 'mmeo'. Did you mean 'mmoe'" in called.err
    assert not (tmp_path / "run").exists()
