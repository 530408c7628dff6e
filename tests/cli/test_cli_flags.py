"""What a command may import, and the options it has: both grow only by a decision."""

import subprocess
import sys

import pytest

from motet.cli._app import app

COMMON = {"--json", "--seed"}
FLAGS = {
    "fit": {
        "--target", "--out", "--time-limit", "--split", "--split-column", "--role", "--ignore", "--balance", "--margin",
        "--deploy", "--max-epochs", "--resume", "--sharing", "--task-column",
    },
    "predict": {"--output", "-o", "--target", "--intervals", "--probabilities", "--cost", "--keep"},
    "evaluate": {"--by", "--target"},
    "effects": {"--target", "--repeats", "--max-rows", "--check", "--shap"},
    "export": {"--output", "-o", "--format", "--target", "--weights", "--tolerance"},
    "report": set(),
    "merge": {
        "--method", "--output", "-o", "--plan", "--evaluate", "--keep", "--dtype", "--shard-size", "--resume",
        "--scale", "--density", "--scope", "--combine", "--drop", "--then", "--weights", "--fraction", "--share",
        "--power", "--common", "--statistics", "--floor", "--off-diagonal", "--subspace", "--steps", "--rate",
    },
    "bench": {
        "--problems", "--methods", "--seeds", "--data", "--cache", "--out", "--budget", "--threads", "--jobs",
    },
    "synth": {
        "--rows", "--features", "--tasks", "--correlation", "--match", "--degree", "--kinds", "--noise", "--missing",
        "--mechanism", "--outliers", "--adversarial", "--scale-ratio", "--rows-per-task", "--drift", "--classes",
        "--positive-share", "--form",
    },
    "methods": {"--room"},
}  # fmt: skip
HEAVY = {"torch", "polars", "lightgbm", "pandas", "matplotlib", "numpy", "pyarrow", "sklearn", "scipy"}


def test_the_commands_are_these():
    assert {name for name in app if not name.startswith("-")} == set(FLAGS)


@pytest.mark.parametrize("command", FLAGS)
def test_the_options_of_a_command_are_these(command):
    arguments = app[command].assemble_argument_collection()
    options = {name for argument in arguments for name in argument.names if name.startswith("-")}
    assert options - {"--run", "--table"} == FLAGS[command] | COMMON


def imported_by(code: str) -> set[str]:
    """The top-level modules that a fresh process has after running `code`."""
    ending = "\nprint('MODULES', *sorted({name.split('.')[0] for name in sys.modules}))"
    text = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}{ending}"], capture_output=True, text=True, check=True
    )
    return set(text.stdout.rpartition("MODULES ")[2].split())


def test_import_motet_loads_nothing_heavy():
    assert imported_by("import motet") & HEAVY == set()


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["fit", "--help"], ["predict", "--help"]])
def test_help_loads_nothing_heavy(words):
    assert imported_by(f"from motet.cli import main\nassert main({words}) == 0") & HEAVY == set()


def test_the_check_can_fail():
    assert "numpy" in imported_by("import numpy") & HEAVY


def test_loading_and_predicting_draw_nothing(finished, table_file):
    code = f"import motet; motet.load({str(finished)!r}).predict({str(table_file)!r})"
    assert "matplotlib" not in imported_by(code)
