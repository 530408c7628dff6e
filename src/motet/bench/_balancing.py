"""`motet bench balance`: every balancing method on the same network."""

import inspect
from collections.abc import Iterable, Sequence
from pathlib import Path

from motet.balance import DWA, STCH, Balancer, from_name, methods, wrappers
from motet.bench._claims import CLAIMS
from motet.bench._comparison import Built, Comparison
from motet.bench._gains import SINGLE
from motet.bench._problem import Problem
from motet.tasks import Task

EQUAL = "equal"
METHOD_RATE = 0.025  # of weights that a method learns by gradient, as the released code of their papers has it
NO_CONTENDERS = ("accumulation",)  # it spreads one step over several batches: another schedule, not another method
COMBINED = ("f-mtl+mgda", "f-mtl+pcgrad", "f-mtl+cagrad", "f-mtl+imtl-g", "samo+fairgrad")  # what papers report


def contenders(names: Iterable[str] | None = None) -> list[str]:
    """The methods to compare: `single` and `equal` first, since the others are measured against them.

    Args:
        names: of methods, of wrappers, or both joined as in `f-mtl+cagrad`; when None all methods, all wrappers
            around the method that they take by themselves, and `COMBINED`.

    Raises:
        RequestError: there is no method of that name.
    """
    if names is None:
        alone = [name for name in (*methods(), *wrappers()) if name not in NO_CONTENDERS]
        names = [*alone, *COMBINED]
    chosen = list(dict.fromkeys([SINGLE, EQUAL, *names]))
    for name in chosen:
        if name != SINGLE:
            from_name(name)
    return chosen


def tell_length(balancer: Balancer, steps: int) -> None:
    """Fits to a short training what a method counts in steps; the papers count epochs of long ones.

    STCH warms up for a tenth of the steps and takes its reference from a twentieth, DWA looks at windows of a
    twentieth.
    """
    for part in balancer.modules():
        if isinstance(part, STCH):
            part.warm_up, part.nadir_steps = max(1, steps // 10), max(1, steps // 20)
        elif isinstance(part, DWA):
            part.window = max(1, steps // 20)


def _build(problem: Problem, tasks: Sequence[Task], name: str) -> Built:
    return problem.build(tasks), from_name(EQUAL if name == SINGLE else name)


def _source(name: str) -> bytes:
    known = {**methods(), **wrappers()}
    parts = (EQUAL if name == SINGLE else name).split("+")
    return b"".join(Path(inspect.getfile(known[part])).read_bytes() for part in parts if part in known)


def _none_left_out(problem: Problem, name: str) -> str | None:  # noqa: ARG001 -- every method takes every problem
    return None


BALANCE = Comparison(
    name="balance", base=EQUAL, contenders=contenders, build=_build, source=_source, left_out=_none_left_out,
    claims=CLAIMS,
    training=(
        "Adam, linear warm-up, then linear to zero, the same for every method and for each task alone; weights that a "
        f"method learns by gradient at {METHOD_RATE}; no clipping; the last state is measured"
    ),
)  # fmt: skip
