"""What `motet bench` compares: who takes part, how each is built for a problem, and which claims are tried."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from motet.balance import Balancer
from motet.bench._claims import Claim
from motet.bench._problem import Problem
from motet.models import MultiTaskModel
from motet.tasks import Task

Built = tuple[MultiTaskModel, Balancer]


@dataclass(frozen=True, repr=False)
class Comparison:
    """One kind of method on every problem: all else is the same for all of them.

    Args:
        name: what selects it after `motet bench`.
        base: the contender whose costs are one.
        contenders: the names to compare, from those that were asked for, or from None for all; `single` and the base
            come first. Refuses a name that there is not.
        build: a contender's network for some tasks of a problem, from the global random state, and how their losses
            are balanced; `single` is asked for with one task.
        source: the bytes of the files and settings that define a contender, for the key of its cells.
        left_out: why a contender cannot be measured on a problem; None where it can.
        claims: what papers say.
        training: one sentence on how all are trained, for the result.
    """

    name: str
    base: str
    contenders: Callable[[Iterable[str] | None], list[str]]
    build: Callable[[Problem, Sequence[Task], str], Built]
    source: Callable[[str], bytes]
    left_out: Callable[[Problem, str], str | None]
    claims: tuple[Claim, ...]
    training: str

    def __repr__(self) -> str:
        return f"COMPARISONS[{self.name!r}]"
