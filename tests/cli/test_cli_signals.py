"""A `motet fit` that is stopped in the middle of training, by Ctrl-C, by SIGTERM or by a kill, and then resumed."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from cli_table import fit_words

from motet.cli import main

# Checkpoints at every evaluation, so that a kill often falls into the writing of one.
PROGRAM = """
import sys
import motet.train._checkpoint
motet.train._checkpoint.SECONDS_BETWEEN = 0.0
from motet.cli import main
sys.exit(main())
"""
LONG = ("--max-epochs", "60")


def long_fit(table: Path, out: Path) -> list[str]:
    words = fit_words(table, out, targets=("price", "sold"))
    place = words.index("--max-epochs")
    return [*words[:place], *LONG, *words[place + 2 :]]


def stop_in_training(words: Sequence[str], sent: signal.Signals, stage: str) -> tuple[int, str]:
    """Starts a fit, sends the signal when the stage's second evaluation is out, and gives exit code and messages."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        # A shell that runs the tests in the background has SIGINT ignored, which a child would inherit.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if sum(f"] {stage} epoch" in earlier for earlier in seen) == 2:
            process.send_signal(sent)
            break
    out, err = process.communicate(timeout=60)
    assert out == ""
    return process.returncode, "".join(seen) + err


@pytest.fixture(scope="module")
def whole_scores(table_file, tmp_path_factory) -> dict:
    """What the same fit scores when nobody stops it."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert main(long_fit(table_file, out)) == 0
    return json.loads((out / "metrics.json").read_text())["tasks"]


def status(run: Path) -> str:
    return json.loads((run / "run.json").read_text())["status"]


@pytest.mark.parametrize(
    ("sent", "stage", "code"),
    [
        (signal.SIGINT, "shared", 1),
        (signal.SIGTERM, "own_network:price", 1),
        (signal.SIGKILL, "shared", -signal.SIGKILL),
    ],
    ids=["ctrl-c", "term", "kill"],
)
def test_a_stopped_fit_is_unfinished_and_resumes(motet, table_file, tmp_path, whole_scores, sent, stage, code):
    out = tmp_path / "run"
    words = long_fit(table_file, out)
    found, messages = stop_in_training(words, sent, stage)
    assert found == code
    assert status(out) == "unfinished"
    assert any((out / "work").iterdir())
    assert "Traceback" not in messages
    if sent is not signal.SIGKILL:
        assert messages.strip().splitlines()[-1].startswith("motet: Stopped.")
        assert "the same command with --resume goes on from there" in messages
    refused = motet("predict", out, table_file, "-o", tmp_path / "out.csv")
    assert refused.code == 1
    assert "--resume" in refused.err

    resumed = motet(*words, "--resume", "--json")
    assert resumed.code == 0
    assert status(out) == "complete"
    assert {path.name for path in out.iterdir()} == {
        "run.json", "model.safetensors", "metrics.json", "log.jsonl", "report.html", "card.md"
    }  # fmt: skip
    assert resumed.document["metrics"]["tasks"] == whole_scores


def test_the_reader_of_the_output_may_go(finished):
    program = "import sys; from motet.cli import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "methods", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.close()
    _, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    assert "Exception ignored" not in err
