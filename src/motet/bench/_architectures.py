"""`motet bench sharing`: every sharing architecture between the same encoder and the same heads, with equal weights."""

import inspect
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from motet.balance import EqualWeighting
from motet.bench._comparison import Built, Comparison
from motet.bench._gains import SINGLE
from motet.bench._problem import Problem
from motet.bench._sharing_claims import SHARING_CLAIMS
from motet.models import MultiTaskModel
from motet.models.sharing import Sharing, from_name, methods, settings_of
from motet.tasks import Task

HARD, WIDE, AS_LARGE = "hard", "hard-wide", "mmoe"
MADE_FOR = {
    "dtrn": "it reads sequences of behaviour, and no row of this problem has one",
    "m3net": "it fuses several modalities, and a row of this problem has one",
}


def sharing_contenders(names: Iterable[str] | None = None) -> list[str]:
    """The architectures to compare: `single` and `hard` first, since the others are measured against them.

    Args:
        names: of architectures, or `hard-wide`, which is hard sharing with hidden layers that make it as large as
            `mmoe`; all when None.

    Raises:
        RequestError: there is no architecture of that name.
    """
    chosen = list(dict.fromkeys([SINGLE, HARD, *([WIDE, *methods()] if names is None else names)]))
    for name in chosen:
        if name not in {SINGLE, WIDE}:
            settings_of(name)
    return chosen


def _build(problem: Problem, tasks: Sequence[Task], name: str) -> Built:
    plain = problem.build(tasks)
    if name in {SINGLE, HARD}:
        return plain, EqualWeighting()
    encoder: Any = plain.encoder
    width: Any = plain.sharing.width
    if _reads_tokens(name) and problem.tokens is not None:
        encoder = problem.tokens()
        width = encoder.width
    sharing = _module(name, len(tasks), width)
    model = MultiTaskModel(encoder, sharing, tasks, head_width=plain.heads.weight_in.shape[-1])
    with torch.no_grad():
        model.heads.bias_out.copy_(plain.heads.bias_out)  # where the problem lets its tasks begin
    return model, EqualWeighting()


def _module(name: str, num_tasks: int, width: int) -> Sharing:
    if name != WIDE:
        return from_name(name, num_tasks, width=width)
    like = from_name(AS_LARGE, num_tasks, width=width)
    # One expert for all tasks; with a middle of H it has H · (F + last + 1) + last numbers, and gates that say nothing.
    room = sum(part.numel() for part in like.parameters()) - num_tasks * width - like.width
    settings: dict[str, Any] = {"num_experts": 1, "dims": [round(room / (width + like.width + 1)), like.width]}
    return from_name(AS_LARGE, num_tasks, width=width, settings=settings)


def _source(name: str) -> bytes:
    known = {SINGLE: HARD, WIDE: AS_LARGE}.get(name, name)
    words = json.dumps([name, settings_of(known)], sort_keys=True)
    return words.encode() + Path(inspect.getfile(methods()[known])).read_bytes()


def _left_out(problem: Problem, name: str) -> str | None:
    if _reads_tokens(name) and problem.tokens is None:
        return "it reads tokens, and a row of this problem is a single one"
    return MADE_FOR.get(name)


def _reads_tokens(name: str) -> bool:
    known = methods()
    return name in known and known[name].reads == "tokens"


SHARING = Comparison(
    name="sharing", base=HARD, contenders=sharing_contenders, build=_build, source=_source, left_out=_left_out,
    claims=SHARING_CLAIMS,
    training=(
        "Adam, linear warm-up, then linear to zero, and the sum of the losses, the same for every architecture and for "
        "each task alone; every architecture with the settings that `motet fit --sharing NAME` gives it; no clipping; "
        "the last state is measured"
    ),
)  # fmt: skip
