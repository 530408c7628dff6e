"""The loops in `examples/`, run as a reader runs them: they learn, and they say who pulls against whom."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, epochs: int) -> str:
    """What the script prints."""
    words = [sys.executable, str(EXAMPLES / name), "--epochs", str(epochs)]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def digits_right(printed: str) -> float:
    """The percentage of digits that the last line reports."""
    return float(re.search(r"held-out rows: digit ([\d.]+)% right", printed)[1])


def needs(*packages: str) -> pytest.MarkDecorator:
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)} (group `examples`)")


def test_the_plain_loop() -> None:
    printed = run("plain_loop.py", 10)
    assert "conflicts: " in printed
    assert digits_right(printed) > 85


@pytest.mark.slow
@needs("lightning")
def test_the_lightning_loop() -> None:
    printed = run("lightning_loop.py", 6)
    assert printed.count("conflicts: ") == 6
    assert digits_right(printed) > 75


@pytest.mark.slow
@needs("transformers", "accelerate")
def test_the_trainer_of_hugging_face() -> None:
    printed = run("hf_trainer.py", 6)
    assert "step 0: conflicts: " in printed
    assert digits_right(printed) > 25  # ten digits; this short a training is not at its end
