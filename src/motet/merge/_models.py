"""The checkpoints of one merge, checked against each other, and read piece by piece."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeVar

import numpy as np

from motet._errors import RequestError
from motet.merge._adapter import CONFIG, LoraAdapter
from motet.merge._checkpoint import Checkpoint, Source, StateDict
from motet.merge._dtypes import Array
from motet.merge._files import open_files

# Of nine models these lie in the cache; with fewer, two threads wait more for the interpreter than they work.
PIECE = 1 << 16
THREADS = min(4, os.cpu_count() or 1)

_Found = TypeVar("_Found")
_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Piece:
    """A stretch of one tensor in every model.

    Args:
        name: of the tensor.
        start: the first number's place in the flattened tensor.
        shape: of the whole tensor.
        base: (n,) the base's numbers.
        experts: (n,) each expert's.
    """

    name: str
    start: int
    shape: tuple[int, ...]
    base: Array
    experts: tuple[Array, ...]

    def deltas(self) -> Array:
        """(E, n) what each expert has learned, float64."""
        return np.stack([np.subtract(expert, self.base, dtype=np.float64) for expert in self.experts])


@dataclass(frozen=True)
class Models:
    """A base, its experts, and which tensors are merged.

    Args:
        base: what the experts were tuned from.
        experts: at least one.
        merged: names of the tensors that are merged.
        kept: names of the tensors that the result takes from the base as they are.
        tied: names that stand for another's tensor.
        threads: how many tensors are worked on at once.
    """

    base: Checkpoint
    experts: tuple[Checkpoint, ...]
    merged: tuple[str, ...]
    kept: tuple[str, ...] = ()
    tied: Mapping[str, str] = field(default_factory=dict)
    threads: int = THREADS

    def with_experts(self, experts: Sequence[Checkpoint]) -> "Models":
        """The same merge of other experts."""
        return replace(self, experts=tuple(experts))

    def size(self, name: str) -> int:
        """How many numbers a tensor holds."""
        return self.base.entries[name].size

    def piece(self, name: str, start: int, stop: int, stride: int = 1, *, trusted: bool = False) -> Piece:
        """Reads one stretch, or every `stride`-th number of it, and refuses numbers that are not finite.

        Args:
            name: of the tensor.
            start: the first number.
            stop: behind the last.
            stride: 1 for all numbers.
            trusted: leave the experts' numbers unchecked, for a rule in whose result they show.

        Raises:
            RequestError: a number is NaN or infinite.
        """
        base = self._finite(self.base, name, start, stop, stride)
        experts = tuple(
            expert.read(name, start, stop)[::stride] if trusted else self._finite(expert, name, start, stop, stride)
            for expert in self.experts
        )
        return Piece(name, start, self.base.entries[name].shape, base, experts)

    def pieces(self, name: str, length: int = PIECE, stride: int = 1, *, trusted: bool = False) -> Iterator[Piece]:
        """The stretches of one tensor, in order."""
        size = self.size(name)
        for start in range(0, size, length):
            yield self.piece(name, start, min(size, start + length), stride, trusted=trusted)

    def check(self, name: str) -> None:
        """Refuses a tensor of which a model holds numbers that are not finite.

        Raises:
            RequestError: it names the first such model, and how many numbers.
        """
        for _ in self.pieces(name):
            pass

    def each(self, work: Callable[[str], _Found], names: Sequence[str] | None = None) -> dict[str, _Found]:
        """What `work` gives for each tensor, several at once, the largest first."""
        ordered = sorted(self.merged if names is None else names, key=self.size, reverse=True)
        return dict(zip(ordered, self.map(work, ordered), strict=True))

    def map(self, work: Callable[[_Item], _Found], items: Iterable[_Item]) -> list[_Found]:
        """What `work` gives for each item, several at once; the first error ends it."""
        if self.threads == 1:
            return [work(item) for item in items]
        pool = ThreadPoolExecutor(self.threads)
        try:
            futures = [pool.submit(work, item) for item in items]
            return [future.result() for future in futures]
        finally:
            pool.shutdown(cancel_futures=True)

    def _finite(self, model: Checkpoint, name: str, start: int, stop: int, stride: int) -> Array:
        numbers = model.read(name, start, stop)[::stride]
        if not np.isfinite(numbers).all():
            bad = sum(
                int((~np.isfinite(model.read(name, at, min(at + PIECE, self.size(name))))).sum())
                for at in range(0, self.size(name), PIECE)
            )
            message = (
                f"'{name}' of '{model.title}' holds {bad:,} of {self.size(name):,} numbers that are NaN or infinite; "
                f"finite "
                "weights were expected. Leave this checkpoint out, or take an earlier one of its training."
            )
            raise RequestError(message)
        return numbers


def open_models(base: Source, experts: Sequence[Source], *, keep: Sequence[str] = (), threads: int = 0) -> Models:
    """Opens the checkpoints of a merge.

    Args:
        base: a state dict, a safetensors file or a model folder.
        experts: the same, or folders of LoRA adapters on this base.
        keep: patterns such as 'classifier.*' of tensors that the result takes from the base; experts may lack them.
        threads: how many tensors are worked on at once; 0 for the machine's cores, four at most.

    Raises:
        RequestError: names, shapes or formats do not fit.
    """
    if not experts:
        message = "No expert was given; a base and at least one expert were expected. Name the experts after the base."
        raise RequestError(message)
    first = _open(base, "the base", None)
    opened = tuple(_open(expert, f"expert {number}", first) for number, expert in enumerate(experts, 1))
    kept = _kept([first, *opened], keep)
    tied = first.tied() if isinstance(first, StateDict) else {}
    for expert in opened:
        _fits(first, expert, kept)
        _ties_hold(expert, {name: to for name, to in tied.items() if name not in kept and to not in kept})
    merged = [name for name in first.entries if first.entries[name].is_float and name not in kept and name not in tied]
    if not merged:
        message = f"'{first.title}' holds no floating-point tensor to merge. Is it a checkpoint of weights?"
        raise RequestError(message)
    rest = [name for name in first.entries if name not in set(merged) and name not in tied]
    return Models(first, opened, tuple(merged), tuple(rest), tied, threads or THREADS)


def open_checkpoint(source: Source, title: str) -> Checkpoint:
    """Opens one checkpoint: a state dict, a safetensors file or a model folder."""
    return _open(source, title, None)


def _open(source: Source, title: str, base: Checkpoint | None) -> Checkpoint:
    if isinstance(source, Mapping):
        return StateDict(title, source)
    path = Path(source)
    if base is not None and (path / CONFIG).exists():
        return LoraAdapter(path, base)
    return open_files(path)


def _kept(models: Sequence[Checkpoint], patterns: Sequence[str]) -> set[str]:
    names = {name for model in models for name in model.entries}
    found: set[str] = set()
    for pattern in patterns:
        fitting = {name for name in names if fnmatchcase(name, pattern)}
        if not fitting:
            message = f"No tensor fits keep='{pattern}'. The names look like '{next(iter(models[0].entries))}'."
            raise RequestError(message)
        found |= fitting
    return found


def _fits(base: Checkpoint, expert: Checkpoint, kept: set[str]) -> None:
    missing = [name for name in base.entries if name not in expert.entries and name not in kept]
    extra = [name for name in expert.entries if name not in base.entries and name not in kept]
    for names, has, lacks in ((missing, base, expert), (extra, expert, base)):
        if names:
            message = (
                f"'{lacks.title}' lacks {len(names)} of the tensors of '{has.title}': {_some(names)}. All models of a "
                f"merge "
                "need the same tensors. Was it tuned from this base? "
            )
            fix = "Leave heads to the base with --keep PATTERN, or save tied weights under both names."
            cut = "Remove what the base does not have, such as a task's own head."
            raise RequestError(message + (fix if has is base else cut))
    for name, entry in base.entries.items():
        if name in kept:
            continue
        other = expert.entries[name]
        if other.shape != entry.shape:
            message = (
                f"'{name}' has shape {other.shape} in '{expert.title}' and {entry.shape} in '{base.title}'; equal "
                f"shapes "
                f"were expected. Leave it to the base with --keep '{name}', or bring both to one vocabulary."
            )
            raise RequestError(message)
        if other.is_float != entry.is_float:
            message = (
                f"'{name}' has dtype {other.dtype} in '{expert.title}' and {entry.dtype} in '{base.title}'; weights "
                f"in one "
                "and whole numbers in the other cannot be merged. Is one of them quantised?"
            )
            raise RequestError(message)


def _ties_hold(expert: Checkpoint, tied: Mapping[str, str]) -> None:
    for name, first in tied.items():
        size = expert.entries[name].size
        if not np.array_equal(expert.read(name, 0, size), expert.read(first, 0, size)):
            message = (
                f"'{name}' and '{first}' are one tensor in the base, and differ in '{expert.title}'; tied weights were "
                "expected to stay tied. Untie them in the base: clone one of the two."
            )
            raise RequestError(message)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:3])
    return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "")
