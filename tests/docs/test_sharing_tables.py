"""The measured tables on the page about sharing architectures, from results made up here."""

import json
from pathlib import Path

from generator._sharing_tables import sharing_tables

PAGE = "# Words\n\n<!-- measured: {} -->\nold\n<!-- end -->\n\nmore\n"


def gain(mean: float) -> dict[str, object]:
    return {"mean": mean, "ci95": [mean - 0.5, mean + 0.5], "seeds": 3}


def entry(mean: float | None, parameters: int) -> dict[str, object]:
    return {"delta_m": None if mean is None else gain(mean), "parameters": parameters, "failures": []}


def quality() -> dict[str, object]:
    problems = {"rf1": {}, "digits": {}}
    methods = {
        "hard": {"rf1": entry(-1.0, 100), "digits": entry(0.0, 100)},
        "mmoe": {"rf1": entry(2.0, 200), "digits": entry(1.0, 800)},
        "wide": {"rf1": entry(None, 200), "digits": entry(4.0, 200)},
    }
    overall = {
        "hard": {"mean_delta_m": -0.5, "cpu_ratio": 1.0},
        "mmoe": {"mean_delta_m": 1.5, "cpu_ratio": 2.25},
        "wide": {"mean_delta_m": None, "cpu_ratio": None},
    }
    claim = {
        "better": "mmoe", "worse": "hard", "problem": "rf1", "published": [0.72, 0.71], "measured_on": "clicks",
        "source": "a table", "verdict": "held", "difference": gain(3.0),
    }  # fmt: skip
    return {
        "command": "motet bench sharing --seed 0", "costs_against": "hard", "seeds": [0, 1, 2], "problems": problems,
        "methods": methods, "overall": overall, "claims": [claim, claim | {"problem": "digits", "difference": None}],
        "left_out": {"digits": {"dtrn": "no sequence"}, "rf1": {"dtrn": "no sequence"}},
    }  # fmt: skip


def test_quality_stands_in_the_order_of_its_mean(tmp_path: Path) -> None:
    (tmp_path / "bench_sharing.json").write_text(json.dumps(quality()))
    found = sharing_tables(PAGE.format("sharing"), tmp_path)
    assert "old" not in found
    assert "(`motet bench sharing --seed 0`)" in found
    lines = [line for line in found.splitlines() if line.startswith("| `")]
    assert lines[0] == "| `mmoe` | +2.00 [+1.50, +2.50] | +1.00 [+0.50, +1.50] | +1.50 | 4.0 | 2.25 |"
    assert [line.split("`")[1] for line in lines] == ["mmoe", "hard", "wide"]
    assert "| `wide` | – | +4.00 [+3.50, +4.50] | – | 2.0 | – |" in lines
    assert "Left out: `dtrn` on digits, rf1: no sequence." in found
    assert sharing_tables(found, tmp_path) == found
    assert found.endswith("<!-- end -->\n\nmore\n")


def test_claims_have_a_verdict_for_each_problem(tmp_path: Path) -> None:
    (tmp_path / "bench_sharing.json").write_text(json.dumps(quality()))
    found = sharing_tables(PAGE.format("claims"), tmp_path)
    assert "| `mmoe` over `hard` | 0.72 against 0.71: clicks (a table) | held (+3.00) | – |" in found


def test_peers_are_shown_as_how_much_faster_ours_is(tmp_path: Path) -> None:
    shape = {"kind": "mmoe", "tasks": 2, "experts": 8, "dims": [64, 32], "batch": 128}
    kept = {"first_kept_mb": 2.0, "second_kept_mb": 3.0}
    cells = [
        {"what": f"ours / {name}", **shape, **kept, "backward": backward, "ratio": ratio}
        for name, ratios in (("DeepCTR-Torch", (0.5, 0.8)), ("torch-rechub", (0.25, 1.25)))
        for backward, ratio in zip((False, True), ratios, strict=True)
    ]
    document = {"command": "python benchmarks/sharing.py", "peers": {"deepctr-torch": "0.3.0"}, "cells": cells}
    (tmp_path / "sharing_peers.json").write_text(json.dumps(document))
    found = sharing_tables(PAGE.format("peers"), tmp_path)
    assert "| mmoe, 2 tasks, 8 experts, (64, 32) | 128 | 2.00 | 1.25 | 4.00 | 0.80 |" in found
    assert "deepctr-torch 0.3.0" in found
    assert "keep 1.5 to 1.5 times" in found


def test_a_block_without_results_is_empty(tmp_path: Path) -> None:
    assert sharing_tables(PAGE.format("peers"), tmp_path) == PAGE.format("peers").replace("old\n", "")
