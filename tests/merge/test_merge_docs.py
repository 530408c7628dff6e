"""The commands and the Python of the page on merging, run as written."""

import re
import shlex
import textwrap
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from motet.cli import main

PAGE = (Path(__file__).parents[2] / "docs" / "merge.md").read_text(encoding="utf-8")
BLOCKS = [textwrap.dedent(block).strip() for block in re.findall(r"(?:^(?: {4}.*)?\n)+", PAGE, flags=re.MULTILINE)]
SCORE = """
from safetensors.numpy import load_file

def accuracy(path):
    return float(load_file(path)["weight"].sum())
"""


@pytest.fixture
def model(tmp_path, monkeypatch) -> nn.Module:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    for name in ("base", "reviews", "mail"):
        save_file(nn.Linear(3, 2).state_dict(), f"{name}.safetensors")
    Path("score.py").write_text(SCORE)
    return nn.Linear(3, 2)


def test_the_commands_run(model, capsys):
    lines = [line for block in BLOCKS for line in block.replace("\\\n", " ").splitlines() if line.startswith("motet ")]
    assert len(lines) == 3
    for line in lines:
        assert main(shlex.split(line)[1:]) == 0, capsys.readouterr().err
    assert {path.name for path in Path().glob("*.safetensors")} >= {"merged.safetensors", "best.safetensors"}


def test_the_python_runs(model):
    space: dict = {"model": model, "batches": [[torch.randn(4, 3), torch.randn(4, 3)]]}
    space |= {"merged_rows": [1.0, 0.0] * 20, "expert_rows": [1.0, 1.0] * 20}
    space |= {name: load_file(f"{name}.safetensors") for name in ("base", "reviews", "mail")}
    blocks = [block for block in BLOCKS if "import" in block]
    assert len(blocks) == 3
    for block in blocks:
        exec(block.replace("steps=500", "steps=2"), space)
        assert set(space["merged"]) == {"weight", "bias"}
    assert space["mail_test"].verdict == "worse"
