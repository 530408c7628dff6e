"""The page about adapters, run as written, and the pages made from the classes."""

import re
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from torch import nn

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT))

from generator._adapter_pages import adapter_page, adapter_table  # noqa: E402

from motet.models.adapters import LoRA, attach, methods, save_peft  # noqa: E402


class Net(nn.Module):
    """Something with layers called query and value."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.value = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.value(torch.tanh(self.query(x)))


class Outer(nn.Module):
    """A name with a dot before it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


def test_the_python_of_the_page_runs_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("reviews", "mail"):
        save_peft(attach(Outer(), LoRA(rank=2)), tmp_path / "peft" / name)
    text = (ROOT / "docs" / "adapters.md").read_text(encoding="utf-8")
    blocks = re.findall(r"(?:^(?: {4}.*)?\n)+", "\n" + text, flags=re.MULTILINE)
    space: dict = {"torch": torch, "model": Outer(), "inputs": torch.ones(4, 8)}
    space |= {"hidden_states": [torch.ones(2, 3, 768)] * 13, "mask": torch.ones(2, 3)}
    run = [textwrap.dedent(block).strip() for block in blocks if block.strip()]
    for block in run:
        exec(block, space)
    assert len(run) == 6
    assert space["new"].num_parameters() == 2
    assert space["outputs"].shape == (4, 8)
    assert (space["feature"].shape, space["short"].shape) == ((2, 768), (2, 4 * 768))
    assert (tmp_path / "peft" / "again" / "adapter_model.safetensors").exists()


@pytest.mark.parametrize("name", methods())
def test_a_page_says_what_its_class_says(name: str) -> None:
    kind = methods()[name]
    found = adapter_page(kind)
    assert found.startswith(f"# {kind.__name__}\n")
    assert "\n    >>> import torch\n" in found
    for heading in ("## Cost\n\n", "## Source\n\n"):
        assert len(found.partition(heading)[2].split("\n")[0]) > 20
    assert "| `" in found
    assert not re.search(r"\| `\w+` \| [^|]* \|  \|", found), "an argument has no meaning in the docstring"


def test_the_table_is_filled_between_its_markers() -> None:
    found = adapter_table("a\n<!-- adapters -->\nold\n<!-- end -->\nb\n")
    assert found.startswith("a\n<!-- adapters -->\n\n| adapter |")
    assert found.endswith("\n\n<!-- end -->\nb\n")
    assert found.count("](adapters/") == len(methods())
    assert adapter_table(found) == found
