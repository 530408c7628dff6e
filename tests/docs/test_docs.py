"""The docs' own words, run: commands and Python as written, on a small table; and links that lead somewhere."""

import re
import shlex
import textwrap
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from motet.cli import main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "CONTRIBUTING.md"]


def blocks(page: Path) -> list[str]:
    """The indented code blocks of a page."""
    found = re.findall(r"(?:^(?: {4}.*)?\n)+", "\n" + page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return [textwrap.dedent(block).strip() for block in found if block.strip()]


def flights(rows: int) -> pl.DataFrame:
    """A table with the columns that the docs speak of."""
    generator = np.random.default_rng(0)
    delay = generator.gamma(1.0, 20.0, rows)
    cancelled = generator.random(rows) < 0.2
    noisy = pl.Series(delay + generator.normal(0, 5, rows))
    return pl.DataFrame({
        "carrier": generator.choice(["AA", "UA", "DL"], rows),
        "distance": generator.normal(1000, 300, rows),
        "dep_delay": noisy.zip_with(pl.Series(~cancelled), pl.Series([None] * rows, dtype=pl.Float64)),
        "cancelled": cancelled,
        "bucket": np.where(delay > 30, "late", "early"),
        "wind": delay / 10 + generator.normal(0, 1, rows),
    })  # fmt: skip


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    table = flights(400)
    table.write_parquet("flights.parquet")
    table.drop("dep_delay", "cancelled", "bucket").head(50).write_parquet("tomorrow.parquet")
    table.head(100).write_parquet("labelled.parquet")
    return tmp_path


def commands(page: Path) -> list[list[str]]:
    """Every `motet …` line of a page's blocks, continued lines joined."""
    found = []
    for block in blocks(page):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("motet ") and "…" not in line and "RUN" not in line:
                found += [shlex.split(line)[1:]]
    return found


def test_the_commands_of_the_first_page_run_as_written(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = commands(ROOT / "docs" / "one-table.md")
    assert [words[0] for words in listed] == ["fit", "predict", "evaluate", "report"]
    for words in listed:
        extra = ["--max-epochs", "1"] if words[0] == "fit" else []
        assert main([*words, *extra]) == 0, capsys.readouterr().err
    assert pl.read_parquet("predictions.parquet").columns[0] == "dep_delay"


def test_the_python_of_the_first_page_runs_as_written(here: Path) -> None:
    import torch

    import motet

    short = "settings=motet.FitSettings(max_epochs=1)"
    (fit, loop) = [
        block for block in blocks(ROOT / "docs" / "one-table.md") if "import motet" in block or "from motet" in block
    ]
    space: dict = {"frame": flights(20)}
    exec(fit.replace("time_limit=300", short), space)
    assert space["model"].predict(space["frame"]).columns == ["dep_delay", "cancelled", "bucket"]
    tasks = [motet.Regression("dep_delay", center=0.0, scale=1.0), motet.Binary("cancelled", classes=(False, True))]
    linear = torch.nn.Linear(3, 128)
    space = {
        "torch": torch,
        "encoder": linear,
        "tasks": tasks,
        "inputs": torch.randn(8, 3),
        "targets": {"dep_delay": torch.randn(8), "cancelled": torch.ones(8)},
        "present": {"dep_delay": torch.rand(8) > 0.5, "cancelled": torch.zeros(8, dtype=torch.bool)},
    }
    before = linear.weight.detach().clone()
    exec(loop, space)
    assert not torch.equal(before, linear.weight)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    broken = [
        target
        for target in re.findall(r"\]\(([^)#\s]+)\)", text)
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_the_pages_name_exist(page: Path) -> None:
    named = re.findall(
        r"`((?:src|tests|docs|benchmarks|examples|generator|train|tabular|data|balance)/[\w/.-]+\.(?:py|md|json))`",
        page.read_text(encoding="utf-8"),
    )
    missing = [name for name in named if not any((base / name).exists() for base in (ROOT, ROOT / "src" / "motet"))]
    assert missing == []
