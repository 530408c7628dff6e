"""Where merged tensors go: into memory, or into files that appear whole or not at all."""

import contextlib
import errno
import json
import os
import shutil
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from motet._errors import RequestError, RunError
from motet.merge._checkpoint import Entry
from motet.merge._dtypes import STORED, Array
from motet.merge._layout import Layout

try:
    import fcntl
except ImportError:  # Windows has no advisory locks of this kind
    fcntl = None

_SYNC_BYTES = 256 << 20


class Sink(ABC):
    """Takes merged numbers in any order, from several threads."""

    finished: frozenset[str] = frozenset()  # tensors that are already there

    @abstractmethod
    def write(self, name: str, start: int, stored: Array) -> None:
        """Takes the numbers from `start` of a flattened tensor, in its output format."""

    def done(self, name: str) -> None:  # noqa: B027
        """Hears that all of a tensor has been written."""


class Memory(Sink):
    """Arrays by name.

    Args:
        entries: what each tensor will be.
    """

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        self.arrays = {name: np.empty(entry.size, STORED[entry.dtype]) for name, entry in entries.items()}

    def write(self, name: str, start: int, stored: Array) -> None:
        """Copies the numbers into place."""
        self.arrays[name][start : start + len(stored)] = stored


class Staged(Sink):
    """Files in a hidden folder beside the target; `publish` moves them there once they are whole and on the disk.

    A journal lists the tensors whose bytes the disk has confirmed, so that a killed merge of the same request can go
    on.

    Args:
        target: the file or folder to be made.
        layout: which bytes go where.
        request: what is being merged and how; a journal of another request is not gone on with.
        resume: go on with what an earlier process left.

    Raises:
        RequestError: the target exists, or another process is writing it.
        RunError: the folder cannot be written to, or the disk is too small.
    """

    def __init__(self, target: Path, layout: Layout, request: Mapping[str, Any], *, resume: bool) -> None:
        self._target, self._layout = target, layout
        self.folder = target.with_name(f".{target.name}.part")
        self._lock = threading.Lock()
        self._unsynced: list[str] = []
        self._unsynced_bytes = 0
        with explained(target):
            if not resume and self.folder.exists() and not _is_locked(self.folder / "journal"):
                shutil.rmtree(self.folder)
            self.folder.mkdir(exist_ok=True)
            self._journal = (self.folder / "journal").open("a+", encoding="utf-8")
        self._files: dict[str, int] = {}
        if not _take_lock(self._journal):
            self._close()
            message = f"Another merge is writing '{target}' now. Wait for it, or choose another output."
            raise RequestError(message)
        try:
            self._begin(json.dumps(request, sort_keys=True))
        except RunError:
            self.discard()
            raise

    def write(self, name: str, start: int, stored: Array) -> None:
        """Writes the numbers to their place in their file."""
        file, offset = self._layout.places[name]
        data = np.ascontiguousarray(stored).reshape(-1).data.cast("B")
        offset += start * stored.itemsize
        with explained(self._target):
            while data:
                written = os.pwrite(self._files[file], data, offset)
                data, offset = data[written:], offset + written

    def done(self, name: str) -> None:
        """Notes the tensor in the journal, once enough has been written to make the disk confirm it."""
        with self._lock:
            self._unsynced.append(name)
            self._unsynced_bytes += self._layout.entries[name].num_bytes
            if self._unsynced_bytes >= _SYNC_BYTES:
                self._sync()

    def publish(self) -> None:
        """Makes the target appear, whole."""
        with explained(self._target):
            self._sync()
            self._close()
            if self._layout.is_folder:
                (self.folder / "journal").unlink()
                self.folder.replace(self._target)
            else:
                (self.folder / self._target.name).replace(self._target)
                shutil.rmtree(self.folder)
            _sync_folder(self._target.parent)

    def discard(self) -> None:
        """Leaves nothing behind."""
        self._close()
        with contextlib.suppress(OSError):
            shutil.rmtree(self.folder)

    def keep(self) -> None:
        """Leaves what there is for a later process to go on with."""
        self._close()

    def _begin(self, request: str) -> None:
        self._journal.seek(0)
        # A line that a kill has torn lacks its end, and a torn name its closing quote.
        lines = self._journal.read().split("\n")[:-1]
        if lines and lines[0] != request:
            message = (
                f"'{self.folder}' holds an unfinished merge of other checkpoints or parameters; the same request was "
                f"expected "
                "for --resume. Start without --resume, which begins anew."
            )
            self._close()
            raise RequestError(message)
        noted = set(lines[1:])
        self.finished = frozenset(name for name in self._layout.entries if json.dumps(name) in noted)
        with explained(self._target):
            for file, size in self._layout.sizes.items():
                self._files[file] = os.open(self.folder / file, os.O_CREAT | os.O_RDWR, 0o666)
                _reserve(self._files[file], size)
                if not lines:
                    os.pwrite(self._files[file], self._layout.headers[file], 0)
            for file, text in self._layout.texts.items():
                (self.folder / file).write_text(text, encoding="utf-8")
            if not lines:
                self._journal.truncate(0)
            print("" if lines else request, file=self._journal, flush=True)

    def _sync(self) -> None:
        with explained(self._target):
            for descriptor in self._files.values():
                os.fsync(descriptor)
            for name in self._unsynced:
                print(json.dumps(name), file=self._journal)
            self._journal.flush()
        self._unsynced.clear()
        self._unsynced_bytes = 0

    def _close(self) -> None:
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files.clear()
        self._journal.close()


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns the system's errors into ours."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            message = (
                f"The disk is full: '{path}' could not be written, and nothing was left there. Free space, and repeat."
            )
        else:
            reason = error.strerror or error
            message = f"'{path}' could not be written ({reason}). Check that its folder exists and is yours to write."
        raise RunError(message) from error


def _reserve(descriptor: int, size: int) -> None:
    # A disk that is too small says so now, not after an hour.
    if hasattr(os, "posix_fallocate") and size:
        try:
            os.posix_fallocate(descriptor, 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
    os.ftruncate(descriptor, size)


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _take_lock(file: Any) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_locked(path: Path) -> bool:
    if not path.exists():
        return False
    with path.open("a") as file:
        return not _take_lock(file)
