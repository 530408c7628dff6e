"""DARE: drop and rescale before another merge."""

import hashlib
from dataclasses import dataclass, field
from functools import lru_cache
from typing import ClassVar

import numpy as np

from motet._errors import RequestError
from motet.merge._checkpoint import Checkpoint
from motet.merge._claims import Golden
from motet.merge._dtypes import Array
from motet.merge._method import Method, Rule
from motet.merge._models import Models
from motet.merge._task_arithmetic import TaskArithmetic


@dataclass(frozen=True, kw_only=True)
class DARE(Method):
    """Drops a random share of each expert's changes, scales up the rest, and merges it by another method.

    Choose it where experts have moved little from a large base: most changes are redundant, and fewer collide.

        τ_e ← m ⊙ τ_e / (1 − p),   m ~ Bernoulli(1 − p) by entry;   then average, task arithmetic or TIES

    Args:
        drop: p, from 0 up to but without 1.
        then: the method that merges what is left.
        seed: of the random choice.

    Cost: that of the other method, and one random number for each entry of each expert in each of its passes.

    Source: Yu et al., Language Models are Super Mario, ICML 2024. The choice is a function of seed, expert's place,
        tensor and entry alone (Philox counters), so threads and the size of pieces do not change it.
    """

    name: ClassVar[str] = "dare"
    claims: ClassVar[frozenset[str]] = frozenset({"the base stays", "homogeneous"})
    golden: ClassVar[tuple[Golden, ...]] = (
        Golden(
            (1.0, 1.0), ((2.0, 1.0), (1.0, 3.0)), (1.3, 1.6), "by hand: nothing is dropped", parameters={"drop": 0.0}
        ),
    )

    drop: float = 0.5
    then: Method = field(default_factory=TaskArithmetic)
    seed: int = 0

    def rule(self, models: Models) -> Rule:
        """The other method's rule for the thinned experts."""
        if not 0 <= self.drop < 1:
            message = f"dare got drop={self.drop}; a share from 0 up to but without 1 was expected. Change drop."
            raise RequestError(message)
        if self.then.whole or isinstance(self.then, DARE):
            message = f"dare got then={self.then.name}; average, task_arithmetic or ties was expected. Change then."
            raise RequestError(message)
        thinned = models.with_experts(
            [
                _Thinned(models.base, expert, self.drop, (self.seed, number))
                for number, expert in enumerate(models.experts)
            ]
        )
        rule = self.then.rule(thinned)
        return lambda piece: rule(thinned.piece(piece.name, piece.start, piece.start + len(piece.base)))


class _Thinned(Checkpoint):
    """An expert most of whose changes are gone, in float64 so that base and change can be told apart again."""

    def __init__(self, base: Checkpoint, expert: Checkpoint, drop: float, key: tuple[int, int]) -> None:
        super().__init__(expert.title, expert.entries)
        self._base, self._expert, self._drop, self._key = base, expert, drop, key

    def stored(self, name: str, start: int, stop: int) -> Array:
        return self._expert.stored(name, start, stop)

    def checksum(self) -> str:
        return self._expert.checksum()

    def read(self, name: str, start: int, stop: int) -> Array:
        base = self._base.read(name, start, stop).astype(np.float64)
        changes = np.subtract(self._expert.read(name, start, stop), base, dtype=np.float64)
        changes *= _uniform(_philox_key(*self._key, name), start, stop) >= np.uint32(self._drop * 2**32)
        changes /= 1 - self._drop
        changes += base
        return changes


@lru_cache(maxsize=4096)
def _philox_key(seed: int, number: int, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {number} {name}".encode()).digest()[:16], "little")


def _uniform(key: int, start: int, stop: int) -> Array:
    """(n,) whole numbers below 2³², each a function of the key and of the entry's place. A counter yields eight."""
    first = start // 8
    words = np.random.Philox(key=key, counter=first).random_raw(-(-(stop - first * 8) // 2))
    return words.view(np.uint32)[start - first * 8 : stop - first * 8]
