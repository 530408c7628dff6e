"""Folders of PEFT's LoRA adapters, read and written."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from motet._errors import RequestError, suggest
from motet.models.adapters._attach import Adapters, attach
from motet.models.adapters._lora import LoRA, LowRankLayer, TaskLoRA

_CONFIG = "adapter_config.json"
_WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."


@dataclass(frozen=True)
class _Folder:
    """One adapter: factors A (r, in) and B (out, r) by layer, and what a layer's product is multiplied with."""

    path: Path
    factors: dict[str, tuple[Tensor, Tensor]]
    rank: int
    scale: float


def load_peft(module: nn.Module, folders: str | Path | Mapping[str, str | Path]) -> Adapters:
    """Puts LoRA adapters that PEFT trained onto their base.

    Args:
        module: the base, with the layer names that it had in PEFT.
        folders: one folder, which becomes LoRA for all tasks; or a folder for each task's name, which become TaskLoRA.

    Raises:
        RequestError: a folder holds something else than plain LoRA of one rank, does not fit the module, or several
            differ in layers, rank or scale.
    """
    many = isinstance(folders, Mapping)
    found = [_read(Path(folder)) for folder in (folders.values() if many else [folders])]
    if not found:
        message = "No folder was given; a folder of PEFT for each task was expected. Give {'task': 'folder'}."
        raise RequestError(message)
    for other in found[1:]:
        _check_alike(found[0], other)
    first = found[0]
    _check_layers(module, first)
    kind = TaskLoRA if many else LoRA
    settings = kind(rank=first.rank, alpha=first.scale * first.rank)
    tasks = list(folders) if isinstance(folders, Mapping) else []
    adapters = attach(module, settings, layers=lambda name, _: name in first.factors, tasks=tasks)
    with torch.no_grad():
        for name, part in adapters.parts.items():
            if isinstance(part, LowRankLayer):
                part.down.copy_(torch.stack([folder.factors[name][0].T for folder in found]))
                part.up.copy_(torch.stack([folder.factors[name][1].T for folder in found]))
    return adapters


def save_peft(adapters: Adapters, folder: str | Path, *, task: str | None = None) -> None:
    """Writes a task's update as a LoRA adapter that PEFT loads, whatever low-rank adapter it comes from.

    Args:
        adapters: of any kind but Bottleneck; a mixture of skills is written as the one update that it is for the task.
        folder: where to; it is made if need be.
        task: a name; not needed where all tasks share one update.

    Raises:
        RequestError: there is no such task, one is needed, or the update is no matrix.
    """
    pairs = {name: part.pair(adapters.number(task)) for name, part in adapters.parts.items()}
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{_PREFIX}{name}.lora_{letter}.weight": factor.detach().contiguous()
        for name, pair in pairs.items()
        for letter, factor in zip("AB", pair, strict=True)
    }
    save_file(tensors, path / _WEIGHTS, metadata={"format": "pt"})
    ranks = {name: down.shape[0] for name, (down, _) in pairs.items()}
    scales = {name: part.scale for name, part in adapters.parts.items()}
    text = json.dumps(_config(ranks, scales, type(adapters.module).__name__), indent=2)
    (path / _CONFIG).write_text(text + "\n", encoding="utf-8")


def _config(ranks: Mapping[str, int], scales: Mapping[str, float], base: str) -> dict[str, Any]:
    first = next(iter(ranks))
    alphas = {name: rank * scales[name] for name, rank in ranks.items()}
    return {
        "peft_type": "LORA",
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": ranks[first],
        "lora_alpha": alphas[first],
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "target_modules": list(ranks),
        "rank_pattern": {name: rank for name, rank in ranks.items() if rank != ranks[first]},
        "alpha_pattern": {name: alpha for name, alpha in alphas.items() if alpha != alphas[first]},
    }


def _read(path: Path) -> _Folder:
    try:
        config = json.loads((path / _CONFIG).read_text(encoding="utf-8"))
        tensors = load_file(path / _WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        message = (
            f"'{path}' cannot be read ({error}); a folder with {_CONFIG} and {_WEIGHTS} was expected. Save the adapter "
            "with PEFT's save_pretrained."
        )
        raise RequestError(message) from error
    _check_plain(path, config)
    factors = _pairs(path, tensors)
    ranks = {down.shape[0] for down, _ in factors.values()}
    if len(ranks) != 1:
        message = (
            f"'{path}' has layers of ranks {sorted(ranks)}; one rank for all was expected here. `motet merge` reads "
            "such adapters and folds them into their base."
        )
        raise RequestError(message)
    rank = ranks.pop()
    alpha = float(config.get("lora_alpha", rank))
    return _Folder(path, factors, rank, alpha / (math.sqrt(rank) if config.get("use_rslora") else rank))


def _check_plain(path: Path, config: Mapping[str, Any]) -> None:
    kind = config.get("peft_type", "LORA")
    odd = [name for name in ("use_dora", "alpha_pattern", "modules_to_save", "fan_in_fan_out") if config.get(name)]
    odd += ["bias"] if config.get("bias", "none") != "none" else []
    if kind != "LORA" or odd:
        what = f"of kind {kind}" if kind != "LORA" else f"with {odd[0]}={config[odd[0]]!r}"
        message = (
            f"'{path}' is an adapter {what}; plain LoRA was expected. Merge it into its base with PEFT's "
            "merge_and_unload, and adapt the merged model."
        )
        raise RequestError(message)


def _pairs(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    sides: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        found = re.fullmatch(r"(.*)\.lora_([AB])(?:\.[^.]+)??\.weight", key.removeprefix(_PREFIX))
        if not found:
            message = (
                f"'{path}' holds '{key}', which is no factor of a linear layer; lora_A and lora_B of linear layers "
                "were expected. Train the adapter on those alone."
            )
            raise RequestError(message)
        sides.setdefault(found[1], {})[found[2]] = tensor
    for name, pair in sides.items():
        if len(pair) != 2:
            message = f"'{path}' has one factor of layer '{name}' alone; A and B were expected. Save the adapter again."
            raise RequestError(message)
    return {name: (pair["A"], pair["B"]) for name, pair in sides.items()}


def _check_alike(first: _Folder, other: _Folder) -> None:
    shown: Sequence[tuple[str, Any, Any]] = (
        ("rank", first.rank, other.rank),
        ("scale", first.scale, other.scale),
        ("layers", sorted(first.factors), sorted(other.factors)),
    )
    for what, one, two in shown:
        if one != two:
            message = (
                f"'{first.path}' and '{other.path}' differ in {what}: {one} and {two}. Adapters beside each other need "
                "to be alike in it. Load them one at a time."
            )
            raise RequestError(message)


def _check_layers(module: nn.Module, folder: _Folder) -> None:
    linear = {name: part for name, part in module.named_modules() if isinstance(part, nn.Linear)}
    for name, (down, up) in folder.factors.items():
        if name not in linear:
            message = (
                f"'{folder.path}' adapts the layer '{name}', which {type(module).__name__} does not have as a linear "
                f"layer.{suggest(name, linear)} Give the base that it was trained on."
            )
            raise RequestError(message)
        shape = (up.shape[0], down.shape[1])
        if shape != tuple(linear[name].weight.shape):
            message = (
                f"'{folder.path}' has an update of shape {shape} for '{name}', whose weight is "
                f"{tuple(linear[name].weight.shape)}. Give the base that it was trained on."
            )
            raise RequestError(message)
