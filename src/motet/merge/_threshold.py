"""The k-th largest change of each expert, exactly, without sorting and without holding the changes."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from motet.merge._dtypes import Array
from motet.merge._models import Models, Piece

# Non-negative floats order like their bits.
_MAGNITUDE = np.uint32(0x7FFFFFFF)
_END = 1 << 31
_BINS = 16  # log2
_MANY = 1 << 20
_SAMPLE = 1 << 16


def change(piece: Piece, expert: int) -> Array:
    """(n,) what an expert has learned, float32: a copy."""
    return np.subtract(piece.experts[expert], piece.base).astype(np.float32, copy=False)


def magnitudes(changes: Array) -> Array:
    """(n,) bits that order as the absolute values do, uint32."""
    return changes.view(np.uint32) & _MAGNITUDE


@dataclass
class _Count:
    """How many magnitudes lie below `low`, and those in [low, high): themselves, or a histogram once they are many."""

    low: int
    high: int
    below: int = 0
    inside: list[Array] = field(default_factory=list)
    num_inside: int = 0
    bins: Array | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def shift(self) -> int:
        """A bin is 2^shift values wide."""
        return max(0, (self.high - self.low - 1).bit_length() - _BINS)

    def add(self, bits: Array) -> None:
        below = int(np.count_nonzero(bits < np.uint32(self.low)))
        # Subtraction wraps what is below to something large, so that one comparison finds both ends.
        bits = bits - np.uint32(self.low)
        inside = bits[bits < np.uint32(self.high - self.low)]
        with self.lock:
            self.below += below
            self.inside.append(inside)
            self.num_inside += len(inside)
            if self.num_inside > _MANY:
                self.flush()

    def flush(self) -> None:
        if not self.inside:
            return
        places = np.concatenate(self.inside) >> np.uint32(self.shift)
        found = np.bincount(places, minlength=1 << _BINS)
        self.bins = found if self.bins is None else self.bins + found
        self.inside.clear()
        self.num_inside = 0

    def narrowed(self, rank: int) -> tuple[int, int, bool]:
        """Where the value of that rank (from one, ascending) lies, [low, high), and whether it is known to be `low`."""
        if rank <= self.below:
            return 0, self.low, False
        if self.bins is None:
            place = rank - self.below - 1
            if place >= self.num_inside:
                return self.high, _END, False
            value = self.low + int(np.partition(np.concatenate(self.inside), place)[place])
            return value, value + 1, True
        self.flush()
        upto = self.below + np.cumsum(self.bins)
        if rank > upto[-1]:
            return self.high, _END, False
        low = self.low + (int(np.searchsorted(upto, rank)) << self.shift)
        return low, low + (1 << self.shift), self.shift == 0


def least_kept(models: Models, names: Sequence[str], ranks: Callable[[int], int], *, threads: bool) -> Array:
    """(E,) the bits of each expert's change of the given rank, over the tensors together.

    A sample brackets the value, and one pass counts what is below the bracket and finds the value inside. A bracket
    that misses it, or holds a million changes, costs a further pass. The answer is exact whatever the sample says.

    Args:
        models: base and experts.
        names: the tensors that are taken as one vector.
        ranks: from the number of entries to the rank, one for the smallest.
        threads: walk several tensors at once.

    Cost: usually two passes, the first of which reads one number of 251 at the most.
    """
    total = sum(models.size(name) for name in names)
    if not total:
        return np.zeros(len(models.experts), np.uint32)
    rank = ranks(total)
    brackets = _guess(models, names, rank, threads=threads)
    while not all(is_known for _, _, is_known in brackets):
        counts = {expert: _Count(low, high) for expert, (low, high, is_known) in enumerate(brackets) if not is_known}

        def count(piece: Piece, counts: dict[int, _Count] = counts) -> None:
            for expert, counter in counts.items():
                counter.add(magnitudes(change(piece, expert)))

        _walk(models, names, count, threads=threads)
        for expert, counter in counts.items():
            brackets[expert] = counter.narrowed(rank)
    return np.array([low for low, _, _ in brackets], np.uint32)


def _walk(
    models: Models, names: Sequence[str], visit: Callable[[Piece], None], *, threads: bool, stride: int = 1
) -> None:
    def tensor(name: str) -> None:
        for piece in models.pieces(name, stride=stride):
            visit(piece)

    if threads:
        models.each(tensor, names)
    else:
        for name in names:
            tensor(name)


def _guess(models: Models, names: Sequence[str], rank: int, *, threads: bool) -> list[tuple[int, int, bool]]:
    """Where each expert's value lies in all likelihood; known, where the sample is everything."""
    total = sum(models.size(name) for name in names)
    stride = min(max(total // _SAMPLE, 1), 251)
    samples = _sample(models, names, stride, threads=threads)
    if stride == 1:
        values = [int(np.partition(every, rank - 1)[rank - 1]) for every in samples]
        return [(value, value + 1, True) for value in values]
    share = rank / total
    brackets = []
    for sample in samples:
        spread = 5 * (share * (1 - share) / len(sample)) ** 0.5
        low, high = (int(np.clip(share + side * spread, 0, 1) * (len(sample) - 1)) for side in (-1, 1))
        parts = np.partition(sample, [low, high])
        brackets.append((int(parts[low]), int(parts[high]) + 1, False))
    return brackets


def _sample(models: Models, names: Sequence[str], stride: int, *, threads: bool) -> list[Array]:
    """Every `stride`-th magnitude of each expert."""
    parts: dict[str, list[list[Array]]] = {name: [[] for _ in models.experts] for name in names}

    def visit(piece: Piece) -> None:
        for expert in range(len(models.experts)):
            parts[piece.name][expert].append(magnitudes(change(piece, expert)))

    _walk(models, names, visit, threads=threads, stride=stride)
    return [
        np.concatenate([part for name in names for part in parts[name][expert]])
        for expert in range(len(models.experts))
    ]
