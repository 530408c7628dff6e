"""Checkpoints in files: one safetensors file, or a folder of shards. Nothing is loaded; the system maps it in."""

import json
import mmap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from motet._errors import RequestError
from motet.merge._checkpoint import Checkpoint, Entry
from motet.merge._checksum import Checksum
from motet.merge._dtypes import STORED, Array

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl"}


class SafetensorsFiles(Checkpoint):
    """The tensors of one or several safetensors files.

    Args:
        title: what messages call it.
        paths: the files; no two hold a tensor of the same name.

    Raises:
        RequestError: a file is missing, damaged, or no safetensors file.
    """

    def __init__(self, title: str, paths: Sequence[Path]) -> None:
        self._maps = {path: _map(path) for path in paths}
        self._places: dict[str, tuple[Path, int]] = {}
        entries: dict[str, Entry] = {}
        for path, mapped in self._maps.items():
            for name, (entry, offset) in _header(path, mapped).items():
                if name in entries:
                    message = f"Two files of '{title}' hold '{name}', one is '{path}'; once was expected. Remove one."
                    raise RequestError(message)
                entries[name], self._places[name] = entry, (path, offset)
        super().__init__(title, entries)

    def stored(self, name: str, start: int, stop: int) -> Array:
        """A view of the mapped file."""
        path, offset = self._places[name]
        kind = STORED[self.entries[name].dtype]
        return np.frombuffer(self._maps[path], kind, stop - start, offset + start * kind.itemsize)

    def checksum(self) -> str:
        """Of the files' bytes, in the order of their names."""
        found = Checksum()
        for path in sorted(self._maps):
            found.add(self._maps[path])
        return found.text()


def open_files(path: Path) -> SafetensorsFiles:
    """Opens a safetensors file, or a folder that holds `model.safetensors` or its index.

    Raises:
        RequestError: there is no such checkpoint.
    """
    if path.is_dir():
        return SafetensorsFiles(str(path), _shards(path))
    if not path.exists():
        message = f"There is no file '{path}'. A safetensors file, a model folder or an adapter folder was expected."
        raise RequestError(message)
    return SafetensorsFiles(str(path), [path])


def _shards(folder: Path) -> list[Path]:
    index = folder / INDEX
    if not index.exists():
        if (folder / SINGLE).exists():
            return [folder / SINGLE]
        pickles = [found.name for found in sorted(folder.iterdir()) if found.suffix in _PICKLES]
        if pickles:
            raise RequestError(refuse_pickle(folder / pickles[0]))
        if (folder / "adapter_config.json").exists():
            message = f"'{folder}' is an adapter; a whole model was expected here. Name the adapter's base first."
            raise RequestError(message)
        message = (
            f"'{folder}' holds neither {SINGLE} nor {INDEX}; a folder with one of them, or with adapter_config.json, "
            "was expected. Name the safetensors file itself if it is called otherwise."
        )
        raise RequestError(message)
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, AttributeError, UnicodeDecodeError) as error:
        message = f"'{index}' has no readable weight_map ({error}). Restore the file from a copy."
        raise RequestError(message) from error
    return [folder / str(name) for name in sorted(names)]


def _map(path: Path) -> mmap.mmap:
    try:
        with path.open("rb") as file:
            start = file.read(8)
            # A header's length may begin like a pickle or a zip archive, but is then not longer than the file.
            too_long = int.from_bytes(start, "little") > path.stat().st_size
            if path.suffix in _PICKLES or (too_long and start.startswith((b"PK\x03\x04", b"\x80"))):
                raise RequestError(refuse_pickle(path))
            if len(start) < 8:
                raise RequestError(_damaged(path, "it is shorter than a header"))
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        message = f"'{path}' cannot be read ({error.strerror}). Check the name and its permissions."
        raise RequestError(message) from error


def _header(path: Path, mapped: mmap.mmap) -> dict[str, tuple[Entry, int]]:
    length = int.from_bytes(mapped[:8], "little")
    if length > len(mapped) - 8:
        raise RequestError(_damaged(path, f"its header of {length:,} bytes is longer than the file"))
    try:
        header = json.loads(mapped[8 : 8 + length])
        return {
            name: _place(path, name, value, 8 + length, len(mapped))
            for name, value in header.items()
            if name != "__metadata__"
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, RequestError):
            raise
        raise RequestError(_damaged(path, f"its header does not read: {error}")) from error


def _place(path: Path, name: str, value: Mapping[str, Any], start: int, length: int) -> tuple[Entry, int]:
    if value["dtype"] not in STORED:
        message = (
            f"'{name}' of '{path}' has dtype {value['dtype']}; one of {', '.join(sorted(STORED))} was expected. "
            "Quantised weights cannot be merged: merge the originals and quantise the result."
        )
        raise RequestError(message)
    entry = Entry(value["dtype"], tuple(value["shape"]))
    begin, end = value["data_offsets"]
    if end - begin != entry.num_bytes or not 0 <= begin <= end <= length - start:
        raise RequestError(_damaged(path, f"'{name}' lies at bytes {begin} to {end} of {length - start:,}"))
    return entry, start + begin


def _damaged(path: Path, why: str) -> str:
    return f"'{path}' is no whole safetensors file: {why}. Download or copy it again."


def refuse_pickle(path: Path) -> str:
    """What to say of a pickle checkpoint."""
    return (
        f"'{path}' is a pickle checkpoint, which runs code when it is read; a safetensors file was expected. "
        f"If you trust it, convert it: safetensors.torch.save_file(torch.load('{path}', weights_only=True), "
        f"'{'adapter_model' if path.name.startswith('adapter_') else 'model'}.safetensors')"
    )
