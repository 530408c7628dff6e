"""Which bytes of a merged model go into which file."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from motet._errors import RequestError
from motet.merge._checkpoint import Entry
from motet.merge._files import INDEX, SINGLE

_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
# What a model folder holds beside weights: configuration, tokeniser, vocabulary.
_SMALL = 64 << 20
_BESIDE = {".json", ".txt", ".model", ".tiktoken", ".jinja"}


@dataclass
class Layout:
    """The files of a merged model.

    Args:
        is_folder: whether it is a folder of files, or one file.
        entries: what each tensor will be.
        places: each tensor's file, and the byte it begins at.
        headers: the bytes before the first tensor, by file.
        sizes: bytes, by file.
        texts: further files and what they hold.
    """

    is_folder: bool
    entries: dict[str, Entry]
    places: dict[str, tuple[str, int]] = field(default_factory=dict)
    headers: dict[str, bytes] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)


def plan_layout(
    target: Path, entries: Mapping[str, Entry], shard_size: int | None, metadata: Mapping[str, str]
) -> Layout:
    """One file where the target ends in .safetensors, or else a folder in the layout of Hugging Face.

    Args:
        target: file or folder.
        entries: what each tensor will be.
        shard_size: most bytes of tensors in one file of a folder; a larger tensor gets a file of its own.
        metadata: written into every file's header.

    Raises:
        RequestError: shards were asked for in one file.
    """
    is_folder = target.suffix != ".safetensors"
    if shard_size is not None and not is_folder:
        message = f"Shards were asked for in the one file '{target}'; a folder was expected. Leave '.safetensors' out."
        raise RequestError(message)
    layout = Layout(is_folder, dict(entries))
    shards = _shards(entries, shard_size)
    for number, names in enumerate(shards, 1):
        file = target.name
        if is_folder:
            file = SINGLE if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        _lay(layout, file, names, metadata)
    if len(shards) > 1:
        total = sum(entry.num_bytes for entry in entries.values())
        files = {name: file for name, (file, _) in layout.places.items()}
        layout.texts[INDEX] = json.dumps({"metadata": {"total_size": total}, "weight_map": files}, indent=2) + "\n"
    return layout


def parse_size(text: str) -> int:
    """The bytes of a size such as '5GB' or '500MB'.

    Raises:
        RequestError: the text is no size above zero.
    """
    number, unit = text[:-2].strip(), text[-2:].upper()
    try:
        size = int(float(number) * _UNITS[unit])
    except (ValueError, KeyError, OverflowError):
        size = 0
    if size <= 0:
        message = f"The shard size '{text}' was given; a size above zero such as 5GB or 500MB was expected."
        raise RequestError(message)
    return size


def copy_beside(base: Path, folder: Path) -> None:
    """Copies configuration and tokeniser of a model folder, so that the merged one loads as the base does."""
    for file in sorted(base.iterdir()):
        if file.suffix in _BESIDE and file.name != INDEX and file.is_file() and file.stat().st_size < _SMALL:
            shutil.copyfile(file, folder / file.name)


def _shards(entries: Mapping[str, Entry], shard_size: int | None) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    filled = 0
    for name, entry in entries.items():
        if shard_size is not None and shards[-1] and filled + entry.num_bytes > shard_size:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += entry.num_bytes
    return shards


def _lay(layout: Layout, file: str, names: list[str], metadata: Mapping[str, str]) -> None:
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    # Wide numbers first, so that every tensor begins at a multiple of its width.
    names = sorted(names, key=lambda name: -layout.entries[name].num_bytes // max(layout.entries[name].size, 1))
    for name in names:
        entry = layout.entries[name]
        header[name] = {
            "dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": [end, end + entry.num_bytes]
        }  # fmt: skip
        layout.places[name] = (file, end)
        end += entry.num_bytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    layout.headers[file] = len(text).to_bytes(8, "little") + text
    start = len(layout.headers[file])
    for name in names:
        layout.places[name] = (file, start + layout.places[name][1])
    layout.sizes[file] = start + end
