"""What a merging method promises: laws that the suite tries to break, and golden cases from outside our code."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

# Laws that a method may claim; `tests/merge/test_merge_laws.py` holds a proof attempt for each, with random weights.
LAWS = {
    "one expert at coefficient one": "a single expert, with scale 1 where there is one, is returned bit for bit",
    "order is free": "the experts in any order give the same result, up to the last digit",
    "equal experts": "experts that are all equal are returned, with scale 1 / E where there is one",
    "the base stays": "experts that are equal to the base give the base, bit for bit",
    "scales": "what is added to the base is proportional to the scale",
    "disjoint supports add": "experts that changed different entries are added exactly, with scale 1",
    "homogeneous": "base and experts multiplied by c give the result multiplied by c",
}


Nested: TypeAlias = tuple[float, ...] | tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Golden:
    """A case whose answer comes from outside our code.

    Args:
        base: the numbers of one tensor; nested for a matrix.
        experts: the same for each expert.
        merged: the answer.
        source: how it was found: by hand, from a slow independent solver, from a paper.
        tolerance: relative to the largest number.
        parameters: of the method, where they are not its defaults.
    """

    base: Nested
    experts: tuple[Nested, ...]
    merged: Nested
    source: str
    tolerance: float = 1e-6
    parameters: Mapping[str, object] = field(default_factory=dict)
