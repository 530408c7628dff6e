"""LoRA adapters in the folder layout of PEFT, read as the full weights that they stand for."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from motet._errors import RequestError, suggest
from motet.merge._checkpoint import Checkpoint
from motet.merge._dtypes import Array
from motet.merge._files import SafetensorsFiles, refuse_pickle

CONFIG = "adapter_config.json"
_WEIGHTS = "adapter_model.safetensors"
_PICKLE = "adapter_model.bin"
# Ways to begin an adapter that move part of the base's weights into it: on the base as it is, it says something else.
_REBASED = ("pissa", "olora", "corda", "loftq", "lora_ga")
_PREFIX = "base_model.model."


class LoraAdapter(Checkpoint):
    """A base with the adapter's low-rank updates added, W + s·B A; the products are formed piece by piece.

    Args:
        folder: holds adapter_config.json and adapter_model.safetensors.
        base: the checkpoint that the adapter was trained on.

    Raises:
        RequestError: the adapter is of a kind other than LoRA, or does not fit the base.

    Source: Hu et al., LoRA, ICLR 2022; s = alpha / r, or alpha / √r with rank stabilisation, by module where
        rank_pattern and alpha_pattern say so, as PEFT reads them. `modules_to_save` and trained biases replace the
        base's.
    """

    def __init__(self, folder: Path, base: Checkpoint) -> None:
        super().__init__(str(folder), base.entries)
        self._base = base
        self._config = _config(folder)
        pickle = folder / _PICKLE
        if pickle.exists() and not (folder / _WEIGHTS).exists():
            raise RequestError(refuse_pickle(pickle))
        self._files = SafetensorsFiles(str(folder), [folder / _WEIGHTS])
        self._factors: dict[str, tuple[Array, Array]] = {}
        self._replaced: dict[str, str] = {}
        for key in self._files.entries:
            self._take(key)

    def stored(self, name: str, start: int, stop: int) -> Array:
        """The sum in float32; what the adapter does not touch as the base stores it."""
        return self.read(name, start, stop) if name in self._factors else self._base.stored(name, start, stop)

    def read(self, name: str, start: int, stop: int) -> Array:
        """The numbers of the weight with the update added."""
        if name in self._replaced:
            return self._files.read(self._replaced[name], start, stop)
        numbers = self._base.read(name, start, stop)
        if name not in self._factors:
            return numbers
        left, right = self._factors[name]
        width = right.shape[1]
        first, last = start // width, -(-stop // width)
        update = (left[first:last] @ right).reshape(-1)
        return numbers + update[start - first * width : stop - first * width]

    def checksum(self) -> str:
        """Of the adapter's file; the base has its own."""
        return self._files.checksum()

    def _take(self, key: str) -> None:
        found = re.fullmatch(r"(.*)\.lora_(embedding_)?([AB])(?:\.[^.]+)??(\.weight)?", key.removeprefix(_PREFIX))
        if found and found[3] == "A":
            self._take_pair(key, found[1], is_embedding=found[2] is not None)
        elif not found:
            self._take_whole(key)

    def _take_pair(self, key: str, module: str, *, is_embedding: bool) -> None:
        other = re.sub(r"lora_(embedding_)?A", lambda text: text[0][:-1] + "B", key)
        name = self._named(f"{module}.weight", key)
        if other not in self._files.entries:
            message = f"'{self.title}' has '{key}' without '{other}'; both were expected. Save the adapter again."
            raise RequestError(message)
        down, up = self._matrix(key), self._matrix(other)
        scale = _scale(self._config, module, down.shape[0])
        left, right = up * np.float32(scale), down
        if is_embedding or self._config.get("fan_in_fan_out"):
            left, right = right.T, left.T
        shape = self.entries[name].shape
        if left.shape[1:] != right.shape[:1] or left.shape[0] * right.shape[1] != self.entries[name].size:
            message = (
                f"'{key}' of '{self.title}' makes an update of shape ({left.shape[0]}, {right.shape[1]}); the base's "
                f"'{name}' has shape {shape}. Was the adapter trained on another base?"
            )
            raise RequestError(message)
        self._factors[name] = left, right

    def _matrix(self, key: str) -> Array:
        # A convolution's factors (r, in, k, k) and (out, r, 1, 1) are the matrices of the same rows.
        entry = self._files.entries[key]
        return self._files.read(key, 0, entry.size).reshape(entry.shape[0], -1)

    def _take_whole(self, key: str) -> None:
        short = key.removeprefix(_PREFIX).replace(".modules_to_save.", ".").replace(".base_layer.", ".")
        name = self._named(short, key)
        if self._files.entries[key].shape != self.entries[name].shape:
            message = (
                f"'{key}' of '{self.title}' has shape {self._files.entries[key].shape}; the base's '{name}' has "
                f"{self.entries[name].shape}. Was the adapter trained on another base?"
            )
            raise RequestError(message)
        self._replaced[name] = key

    def _named(self, name: str, key: str) -> str:
        if name not in self.entries:
            message = (
                f"'{key}' of '{self.title}' belongs to '{name}', which the base lacks.{suggest(name, self.entries)}"
            )
            raise RequestError(message)
        return name


def _config(folder: Path) -> Mapping[str, Any]:
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        message = f"'{folder / CONFIG}' cannot be read ({error}). Save the adapter again."
        raise RequestError(message) from error
    if not isinstance(config, dict):
        message = f"'{folder / CONFIG}' holds no JSON object; an adapter's configuration was expected."
        raise RequestError(message + " Save the adapter again.")
    kind = _kind(config)
    if kind != "LORA":
        message = (
            f"'{folder}' is an adapter of kind {kind}; plain LoRA was expected. "
            "Merge it into its base with PEFT's merge_and_unload, and pass the whole model."
        )
        raise RequestError(message)
    return config


def _kind(config: Mapping[str, Any]) -> str:
    """'LORA' where W + s·B A on the base as it is says all."""
    begun = str(config.get("init_lora_weights", True)).lower()
    special = {
        "DoRA": config.get("use_dora"),
        "LoRA with a bias": config.get("lora_bias"),
        "activated LoRA": config.get("alora_invocation_tokens"),
        f"LoRA that began as {begun}": begun.startswith(_REBASED),
    }
    return next((name for name, is_so in special.items() if is_so), str(config.get("peft_type", "LORA")))


def _scale(config: Mapping[str, Any], module: str, rank: int) -> float:
    alpha = float(_pattern(config.get("alpha_pattern"), module) or config.get("lora_alpha", rank))
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank


def _pattern(patterns: Mapping[str, float] | None, module: str) -> float | None:
    """PEFT matches a pattern against the end of a module's name."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return None
