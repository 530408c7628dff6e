"""What follows from the code is as `make generate` would write it, and says what the code says."""

import ast
import json
import sys
from pathlib import Path
from typing import ClassVar

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from generator import __main__ as command  # noqa: E402
from generator import _files  # noqa: E402
from generator._chooser import chooser, listed  # noqa: E402
from generator._counterexamples import counterexample, direction  # noqa: E402
from generator._docstring import markdown, read_docstring  # noqa: E402
from generator._facts import Facts, all_facts  # noqa: E402
from generator._lists import api_page, exports  # noqa: E402
from generator._measured import Measured  # noqa: E402
from generator._page import page  # noqa: E402
from generator._table import table  # noqa: E402

from motet.balance import LAWS, MGDA, Balancer, EqualWeighting, Update, View, methods, wrappers  # noqa: E402

FACTS = {fact.name: fact for fact in all_facts()}
NOTHING = Measured({}, {}, {})


def test_nothing_is_stale() -> None:
    assert _files.stale() == [], "Run `make generate` and commit what it writes."


def test_every_method_and_wrapper_has_a_page_and_a_place_in_the_chooser() -> None:
    names = set(methods()) | set(wrappers())
    pages = {path.stem for path in (ROOT / "docs" / "methods").glob("*.md")} - {"index"}
    assert pages == names
    assert names - listed((ROOT / "docs" / "choose.md").read_text(encoding="utf-8")) == set()


def test_a_stale_a_missing_and_a_left_over_page_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    texts = {tmp_path / "docs" / "a.md": "new\n", tmp_path / "docs" / "b.md": "b\n", tmp_path / "docs" / "c.md": "c\n"}
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("old\n")
    (tmp_path / "docs" / "c.md").write_text("c\n")
    (tmp_path / "docs" / "left.md").write_text("left\n")
    monkeypatch.setattr(_files, "ROOT", tmp_path)
    monkeypatch.setattr(_files, "PAGES", tmp_path / "docs")
    monkeypatch.setattr(_files, "outputs", lambda: texts)
    assert _files.stale() == ["docs/a.md", "docs/b.md", "docs/left.md"]


@pytest.mark.parametrize("found", [[], ["docs/a.md"]])
def test_the_check_fails_with_the_command_that_mends_it(
    found: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "stale", lambda: found)
    monkeypatch.setattr(sys, "argv", ["generator", "--check"])
    assert command.main() == len(found)
    assert capsys.readouterr().out == "".join(f"stale: {path}; run `make generate`\n" for path in found)


class Half(Balancer):
    """Takes half of the sum.

    Choose it to see
    a page.

        d = ½ Σ_k g_k

    Args:
        seed: of nothing,
            on two lines.

    Cost: half a | pass;
        no more.

    Source: this test. Departures: none
        at all.
    """

    name: ClassVar[str] = "half"
    claims: ClassVar[frozenset[str]] = frozenset({"scale equivariant"})

    def __init__(self, *, seed: int = 3) -> None:
        super().__init__()
        self.seed = seed

    def update(self, view: View) -> Update:
        return Update(0.5 * view.losses.new_ones(len(view.names)) / len(view.names))


HALF = Facts("half", Half, "losses", read_docstring(Half), "Half.", has_state=False, learns=False, is_random=True)


def test_a_docstring_is_taken_apart() -> None:
    found = read_docstring(Half)
    assert found.summary == "Takes half of the sum."
    assert found.body == "Choose it to see a page.\n\n    d = ½ Σ_k g_k"
    assert found.arguments == {"seed": "of nothing, on two lines."}
    assert found.sections["Cost"] == "half a | pass; no more."
    assert found.sections["Source"] == "this test. Departures: none at all."
    assert markdown("a\n- b\n\n    x\n      y\n") == "a - b\n\n    x\n      y"


def test_a_page_says_what_its_file_says() -> None:
    found = page(HALF, NOTHING)
    assert found.startswith("# Half\n\n*Half.*\n")
    assert "\n    d = ½ Σ_k g_k\n" in found
    assert "| `seed` | `3` | of nothing, on two lines. |" in found
    assert "--balance half" in found
    assert "draws random numbers from its `seed`" in found
    assert f"| scale equivariant | {LAWS['scale equivariant']} | yes |" in found
    assert "| one task is plain | one task alone gets its own gradient | no: (2, 0) gives (1, 0) |" in found
    assert "\nHalf a | pass; no more.\n" in found
    assert "Measured" not in found


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("famo", "balancer.backward(losses)"),
        ("cagrad", "balancer.backward(losses, features=z)"),
        ("graddrop", "balancer.backward(losses, features=z)"),
        ("moco", "balancer.backward(losses, shared=trunk.parameters())"),
        ("sdmgrad", "balancer.backward(losses, features=z)"),
        ("uncertainty", "*balancer.parameters()"),
        ("f-mtl", "balancer.backward(closure, shared=trunk.parameters())"),
    ],
)
def test_a_page_shows_the_call_that_the_method_takes(name: str, call: str) -> None:
    assert call in page(FACTS[name], NOTHING)


def test_what_a_method_looks_at_is_watched() -> None:
    families = {name: FACTS[name].family for name in ("famo", "pcgrad", "sam-gs", "modo", "samo")}
    assert families == {
        "famo": "losses", "pcgrad": "gramian", "sam-gs": "coordinates", "modo": "features", "samo": "wrapper",
    }  # fmt: skip
    assert [FACTS[name].has_state for name in ("mgda", "famo", "sam", "gradient-noise")] == [False, True, False, True]


@pytest.mark.parametrize("name", methods())
def test_no_counterexample_is_found_to_a_law_that_is_claimed(name: str) -> None:
    kind = methods()[name]
    broken = {law: case for law in kind.claims if (case := counterexample(kind, law))}
    assert broken == {}


def test_counterexamples_are_what_one_finds_by_hand() -> None:
    assert direction(EqualWeighting, ((1.0, 0.0), (-3.0, 1.0))).tolist() == [-2.0, 1.0]
    assert counterexample(EqualWeighting, "never ascends") == "(1, 0), (-3, 1) give (-2, 1)"
    assert counterexample(EqualWeighting, "one task is plain") == ""
    assert counterexample(MGDA, "zero is harmless") == "(1, 0), (0, 0) give (0, 0)"


def gain(mean: float) -> dict:
    return {"mean": mean, "ci95": [mean - 0.5, mean + 0.5], "seeds": 3}


def results(tmp_path: Path) -> Measured:
    """Small results in the two files' own form."""
    cells = [
        {"net": "mlp", "tasks": 8, "way": "half", "ratio": 1.234, "low": 1.2, "high": 1.3, "added_mb": 4.4},
        {"net": "mlp", "tasks": 40, "way": "half features", "ratio": 2.5, "low": 2, "high": 3, "added_mb": 5},
        {"net": "mlp", "tasks": 40, "way": "half sketch", "error": "no"},
        {"net": "mlp", "tasks": 8, "way": "halfway", "ratio": 9.99, "low": 9, "high": 9, "added_mb": 1},
    ]
    (tmp_path / "balance.json").write_text(json.dumps({"command": "python cost.py", "cells": cells}))
    entry = {"scores": {}, "delta_m": gain(1.5), "wall_ratio": 1.3, "cpu_ratio": 1.2, "failures": []}
    failed = {"scores": {}, "delta_m": None, "wall_ratio": None, "cpu_ratio": None, "failures": ["seed 0: failed: x"]}
    claim = {
        "better": "half", "worse": "equal", "problem": "yeast", "published": [1.0, 2.5], "measured_on": "NYUv2",
        "source": "a paper", "verdict": "not held", "difference": gain(-2.0),
    }  # fmt: skip
    document = {
        "format": 1, "command": "motet bench", "budget": "quick", "seeds": [0, 1, 2], "interval": "95%, Student",
        "problems": {"rf1": {}, "yeast": {}},
        "methods": {"half": {"rf1": entry, "yeast": failed}, "half+cagrad": {"rf1": entry}, "halfway": {"rf1": entry}},
        "overall": {"half": {"mean_delta_m": None, "wall_ratio": 1.3, "cpu_ratio": 1.2}}, "claims": [claim],
    }  # fmt: skip
    (tmp_path / "bench_balance.json").write_text(json.dumps(document))
    longer = {"claims": [{**claim, "published": None, "verdict": "held", "difference": gain(3.0)}]}
    (tmp_path / "bench_balance_long.json").write_text(json.dumps(longer))
    return Measured.read(tmp_path)


def test_measured_cost_and_quality_stand_on_the_page(tmp_path: Path) -> None:
    found = page(HALF, results(tmp_path))
    assert "| mlp | 8 | losses alone | 1.23 | 1.20 to 1.30 | 4 MB |" in found
    assert "| mlp | 40 | `features=` | 2.50 | 2.00 to 3.00 | 5 MB |" in found
    assert "9.99" not in found
    assert "sketch" not in found
    assert "| `half` | rf1 | +1.50 [+1.00, +2.00] | 1.20 |" in found
    assert "| `half` | yeast | – | – |" in found
    assert "| `half+cagrad` | rf1 |" in found
    assert "halfway" not in found
    assert "**A published claim does not hold here**: `half` over `equal` on yeast." in found
    assert "| `half` over `equal` | 1 against 2.5: NYUv2 (a paper) | yeast | -2.00 [-2.50, -1.50] | not held |" in found
    assert "| better: NYUv2 (a paper) | yeast, ten times the steps | +3.00 [+2.50, +3.50] | held |" in found


def test_the_chooser_fills_its_blocks_and_keeps_the_words(tmp_path: Path) -> None:
    text = "# Words\n\n<!-- methods: half -->\nold\n<!-- end -->\n\nmore\n"
    found = chooser(text, [HALF], results(tmp_path))
    assert found.startswith("# Words\n\n<!-- methods: half -->\n\n| method |")
    assert found.endswith("<!-- end -->\n\nmore\n")
    assert "half a \\| pass (measured: 1.23 at T = 8, 2.50 at T = 40 with `features=`) | – | 1.20 |" in found
    assert chooser(found, [HALF], results(tmp_path)) == found
    assert "Δm" not in chooser(text, [HALF], NOTHING)
    with pytest.raises(ValueError, match=r"names the method 'halv'.*Mend"):
        chooser(text.replace("half", "halv"), [HALF], NOTHING)


def test_a_new_method_enters_the_lists_and_nothing_else_changes() -> None:
    init = (ROOT / "src" / "motet" / "balance" / "__init__.py").read_text(encoding="utf-8")
    facts = list(FACTS.values())
    assert exports(init, facts) == init
    without = init.replace("from motet.balance._stch import STCH\n", "").replace('    "STCH",\n', "")
    assert without != init
    assert ast.dump(ast.parse(exports(without, facts))) == ast.dump(ast.parse(init))
    assert api_page("a\n<!-- methods -->\nold\n<!-- end -->\nb\n", [HALF]) == (
        "a\n<!-- methods -->\n\n::: motet.balance.Half\n\n<!-- end -->\nb\n"
    )


def test_a_table_keeps_its_cells() -> None:
    assert table(["a"], [["x | y\nz"]]) == "| a |\n| --- |\n| x \\| y z |"
