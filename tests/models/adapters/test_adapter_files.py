"""Adapters in files: motet's own, and the folders of PEFT, whose layout is written out here by hand."""

import json
import math
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from motet import RequestError
from motet.models.adapters import (
    MHR,
    Adapter,
    Adapters,
    Bottleneck,
    LoRA,
    MTLoRA,
    Polytropon,
    TaskLoRA,
    attach,
    load,
    load_peft,
    save,
    save_peft,
    scalearn,
)

TASKS = ["a", "b", "c"]


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 6), nn.Linear(6, 6)).eval()


def rows() -> torch.Tensor:
    return torch.randn(5, 6, generator=torch.Generator().manual_seed(1))


def filled(adapters: Adapters) -> Adapters:
    generator = torch.Generator().manual_seed(2)
    for part in adapters.parts.values():
        for parameter in part.parameters():
            parameter.data.normal_(std=0.3, generator=generator)
    return adapters


def says(*words: str) -> str:
    return ".*".join(re.escape(word) for word in words)


ALL: list[Adapter] = [
    LoRA(2),
    TaskLoRA(2, alpha=5.0),
    MTLoRA(2, 1, task_layers="2|3"),
    Polytropon(3, 2, one_table=True),
    MHR(3, 2, 2),
    Bottleneck(2),
]


@pytest.mark.parametrize("adapter", ALL, ids=lambda adapter: adapter.name)
def test_what_is_saved_is_loaded_onto_a_fresh_base(adapter: Adapter, tmp_path: Path) -> None:
    adapters = filled(attach(net(), adapter, layers="2|3", tasks=TASKS))
    save(adapters, tmp_path / "a.safetensors")
    again = load(net(), tmp_path / "a.safetensors")
    assert again.adapter == adapter
    assert list(again.parts) == ["2", "3"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]
    with adapters.using("b"), again.using("b"):
        assert torch.equal(again.module(rows()), adapters.module(rows()))
    if adapter == Polytropon(3, 2, one_table=True):
        assert again.parts["2"].table is again.parts["3"].table
        assert "3.table" not in load_file(tmp_path / "a.safetensors")


@pytest.mark.parametrize("one_for_all", [False, True])
def test_a_second_stage_is_saved_with_its_sources(one_for_all: bool, tmp_path: Path) -> None:
    sources = filled(attach(net(), TaskLoRA(2), layers="2|3", tasks=TASKS))
    new = scalearn(sources, tasks=["t"], one_for_all=one_for_all)
    save(new, tmp_path / "s.safetensors")
    again = load(net(), tmp_path / "s.safetensors")
    assert again.adapter == new.adapter
    assert again.num_parameters() == new.num_parameters()
    with new.using("t"), again.using("t"):
        assert torch.equal(again.module(rows()), new.module(rows()))


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    adapters = attach(net(), TaskLoRA(2), layers="2|3", tasks=TASKS)
    save(adapters, tmp_path / "a.safetensors")
    with pytest.raises(RequestError, match=says("'2'", "does not have", "module of the training")):
        load(nn.Sequential(nn.Linear(6, 8)), tmp_path / "a.safetensors")
    other = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5), nn.Linear(5, 6))
    with pytest.raises(RequestError, match=says("'2.up' has shape (3, 2, 6)", "(3, 2, 5)")):
        load(other, tmp_path / "a.safetensors")
    assert all(parameter.requires_grad for parameter in other.parameters())
    save_file({"x": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(RequestError, match=says("no file of motet's adapters", "load_peft")):
        load(net(), tmp_path / "other.safetensors")
    (tmp_path / "broken").write_bytes(b"x")
    with pytest.raises(RequestError, match=says("cannot be read", "`save` wrote")):
        load(net(), tmp_path / "broken")
    with pytest.raises(RequestError, match=says("cannot be read")):
        load(net(), tmp_path / "nowhere")
    with pytest.raises(RequestError, match=says("is no folder", "Make it")):
        save(adapters, tmp_path / "no" / "a.safetensors")
    head = {"motet_adapters": json.dumps({"format": 2})}
    save_file({"x": torch.ones(1)}, tmp_path / "new.safetensors", metadata=head)
    with pytest.raises(RequestError, match=says("format 2", "newer motet")):
        load(net(), tmp_path / "new.safetensors")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("2.up"), ("lacks '2.up'", "Attach the same adapter")),
        (lambda state: state.update(x=torch.ones(1)), ("has 'x'", "Attach the same adapter")),
        (lambda state: state.update({"2.up": torch.ones(1)}), ("(1,)", "same settings")),
    ],
)
def test_states_that_do_not_fit(change, words: tuple[str, ...]) -> None:
    adapters = attach(net(), TaskLoRA(2), layers="2|3", tasks=TASKS)
    state = adapters.state_dict()
    change(state)
    with pytest.raises(RequestError, match=says(*words)):
        adapters.load_state_dict(state)


def peft_folder(path: Path, *, rank: int = 2, seed: int = 0, extra: dict | None = None, **config: object) -> Path:
    """As PEFT's save_pretrained lays an adapter on layers '0' and '3' out."""
    path.mkdir()
    draw = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, inputs, outputs in (("0", 6, 8), ("3", 6, 6)):
        tensors[f"base_model.model.{name}.lora_A.weight"] = torch.randn(rank, inputs, generator=draw)
        tensors[f"base_model.model.{name}.lora_B.weight"] = torch.randn(outputs, rank, generator=draw)
    save_file(tensors | (extra or {}), path / "adapter_model.safetensors", metadata={"format": "pt"})
    settings = {"peft_type": "LORA", "r": rank, "lora_alpha": 6, "bias": "none", "target_modules": ["0", "3"]}
    (path / "adapter_config.json").write_text(json.dumps(settings | config))
    return path


def with_updates(folder: Path, scale: float) -> torch.Tensor:
    """The base's outputs with W + s B A in both layers, by plain matrices."""
    base, state = net(), load_file(folder / "adapter_model.safetensors")
    with torch.no_grad():
        for name in ("0", "3"):
            a, b = (state[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB")
            base[int(name)].weight += scale * b @ a
    return base(rows())


@pytest.mark.parametrize(("config", "scale"), [({}, 3.0), ({"use_rslora": True}, 6 / math.sqrt(2))])
def test_a_folder_of_peft_is_the_update_that_it_says(config: dict, scale: float, tmp_path: Path) -> None:
    folder = peft_folder(tmp_path / "p", **config)
    adapters = load_peft(net(), folder)
    assert isinstance(adapters.adapter, LoRA)
    torch.testing.assert_close(adapters.module(rows()), with_updates(folder, scale), rtol=0, atol=1e-5)


def test_several_folders_are_tasks_and_go_back_unchanged(tmp_path: Path) -> None:
    folders = {name: peft_folder(tmp_path / name, seed=seed) for seed, name in enumerate(("mnli", "qqp"))}
    adapters = load_peft(net(), folders)
    assert adapters.adapter == TaskLoRA(rank=2, alpha=6.0)
    for name, folder in folders.items():
        with adapters.using(name):
            torch.testing.assert_close(adapters.module(rows()), with_updates(folder, 3.0), rtol=0, atol=1e-5)
        save_peft(adapters, tmp_path / f"{name}-again", task=name)
        state = load_file(tmp_path / f"{name}-again" / "adapter_model.safetensors")
        for key, value in load_file(folder / "adapter_model.safetensors").items():
            torch.testing.assert_close(state[key], value, rtol=0, atol=1e-6)
        config = json.loads((tmp_path / f"{name}-again" / "adapter_config.json").read_text())
        assert {key: config[key] for key in ("peft_type", "r", "lora_alpha", "target_modules")} == {
            "peft_type": "LORA", "r": 2, "lora_alpha": 6.0, "target_modules": ["0", "3"],
        }  # fmt: skip


@pytest.mark.parametrize("adapter", [LoRA(2, alpha=5.0), MTLoRA(2, 1, mode="matrixv2"), Polytropon(3, 2), MHR(3, 2, 2)])
def test_a_tasks_share_of_any_low_rank_adapter_is_a_folder_of_peft(adapter: Adapter, tmp_path: Path) -> None:
    adapters = filled(attach(net(), adapter, layers="0|3", tasks=TASKS))
    with adapters.using("b"):
        expected = adapters.module(rows())
    save_peft(adapters, tmp_path / "b", task="b")
    torch.testing.assert_close(load_peft(net(), tmp_path / "b").module(rows()), expected, rtol=0, atol=1e-6)


def test_layers_of_different_ranks_are_written_as_patterns(tmp_path: Path) -> None:
    adapters = filled(attach(net(), MTLoRA(2, 1, mode="matrixv2", task_layers="3"), layers="0|3", tasks=TASKS))
    save_peft(adapters, tmp_path / "b", task="b")
    config = json.loads((tmp_path / "b" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (2, 2.0)
    assert (config["rank_pattern"], config["alpha_pattern"]) == ({"3": 3}, {"3": 3.0})


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ({"peft_type": "IA3"}, ("kind IA3", "merge_and_unload")),
        ({"use_dora": True}, ("use_dora=True", "merge_and_unload")),
        ({"bias": "all"}, ("bias='all'",)),
        ({"extra": {"base_model.model.9.lora_A.weight": torch.ones(2, 6)}}, ("layer '9' alone", "A and B")),
        ({"extra": {"base_model.model.3.weight": torch.ones(2, 6)}}, ("'base_model.model.3.weight'", "lora_A")),
        (
            {"extra": {f"base_model.model.2.lora_{side}.weight": torch.ones(3, 3) for side in "AB"}},
            ("ranks [2, 3]", "motet merge"),
        ),
        (
            {"extra": {f"base_model.model.2.lora_{side}.weight": torch.ones(2, 2) for side in "AB"}},
            ("shape (2, 2) for '2'", "(6, 8)", "base that it was trained on"),
        ),
        (
            {"extra": {f"base_model.model.9.lora_{side}.weight": torch.ones(2, 2) for side in "AB"}},
            ("layer '9'", "does not have", "Give the base"),
        ),
    ],
)
def test_folders_that_are_refused(made: dict, words: tuple[str, ...], tmp_path: Path) -> None:
    module = net()
    with pytest.raises(RequestError, match=says(*words)):
        load_peft(module, peft_folder(tmp_path / "p", **made))
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_folders_that_differ_and_none(tmp_path: Path) -> None:
    one = peft_folder(tmp_path / "1")
    with pytest.raises(RequestError, match=says("differ in rank: 2 and 3", "one at a time")):
        load_peft(net(), {"a": one, "b": peft_folder(tmp_path / "2", rank=3)})
    with pytest.raises(RequestError, match=says("differ in scale: 3.0 and 1.0")):
        load_peft(net(), {"a": one, "b": peft_folder(tmp_path / "3", lora_alpha=2)})
    with pytest.raises(RequestError, match=says("No folder", "for each task")):
        load_peft(net(), {})
    with pytest.raises(RequestError, match=says("cannot be read", "save_pretrained")):
        load_peft(net(), tmp_path)
    adapters = attach(net(), Bottleneck(2), tasks=TASKS)
    with pytest.raises(RequestError, match=says("ReLU")):
        save_peft(adapters, tmp_path / "x", task="a")
    assert not (tmp_path / "x").exists()
