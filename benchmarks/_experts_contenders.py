"""What `merge_experts.py` compares, each with the settings of its paper but for those that are named here."""

from collections.abc import Callable
from typing import Any

import numpy as np
from _experts_case import BATCH, Case, State
from torch import Tensor

from motet.merge import DOGE, TIES, Average, Method, TaskArithmetic, merge
from motet.merge.learned import (
    PseudoLabels,
    Routing,
    adamerging,
    atlas,
    atlas_unlabelled,
    concrete_adamerging,
    concrete_task_arithmetic,
    wemoe,
)

SCALES = tuple(round(0.1 * number, 1) for number in range(1, 11))
SCALE_ROWS = 256  # labelled rows a task that choose a scale
MASK_RATE = 4e-3  # Concrete is published with more steps at 1e-3; this makes up for fewer
PUBLISHED = {"mask_steps": 1000, "steps": 1000, "mask_rate": 1e-3}
ROUTER_RATE = 1e-3  # WEMoE is published with 1e-4 for routers twelve times as wide
# A method, and the one that its paper improves on.
CLAIMS = (
    ("doge", "task arithmetic"), ("adamerging by task", "task arithmetic"), ("adamerging", "task arithmetic"),
    ("adamerging", "ties"), ("adamerging with ties", "ties"), ("concrete task arithmetic", "task arithmetic"),
    ("concrete adamerging by task", "adamerging by task"), ("concrete adamerging", "adamerging"),
    ("concrete task arithmetic, published", "task arithmetic"),
    ("concrete adamerging by task, published", "adamerging by task"), ("concrete adamerging, published", "adamerging"),
    ("atlas", "task arithmetic"), ("atlas", "task arithmetic, tuned"), ("atlas without labels", "task arithmetic"),
    ("wemoe", "adamerging"),
)  # fmt: skip


def contenders(case: Case) -> dict[str, Callable[[], Any]]:
    """What makes each contender: the weights, or a module in the place of the trunk."""
    return {
        "base": lambda: case.base,
        "average": _plain(case, Average()),
        "task arithmetic": _plain(case, TaskArithmetic()),
        "task arithmetic, tuned": lambda: chosen_by_labels(case, lambda scale: TaskArithmetic(scale=scale)),
        "ties": _plain(case, TIES()),
        "ties, tuned": lambda: chosen_by_labels(case, lambda scale: TIES(scale=scale)),
        "doge": _plain(case, DOGE()),
        "adamerging by task": _learned(case, adamerging, by="task"),
        "adamerging": _learned(case, adamerging),
        "adamerging with ties": _learned(case, adamerging, density=0.2),
        "concrete task arithmetic": _learned(case, concrete_task_arithmetic, rate=MASK_RATE, seed=case.seed),
        "concrete adamerging by task": _concrete(case, by="task"),
        "concrete adamerging": _concrete(case),
        # The steps and rates of FusionBench's configurations.
        "concrete task arithmetic, published": _learned(
            case, concrete_task_arithmetic, steps=2000, rate=1e-3, seed=case.seed
        ),
        "concrete adamerging by task, published": _concrete(case, by="task", **PUBLISHED),
        "concrete adamerging, published": _concrete(case, **PUBLISHED),
        "atlas": _learned(case, atlas, loss=case.wrong),
        "atlas of 8 blocks": _learned(case, atlas, loss=case.wrong, blocks=8),
        "atlas without labels": lambda: _unlabelled(case),
        "wemoe": lambda: _routed(case),
    }


def chosen_by_labels(case: Case, make: Callable[[float], Method]) -> State:
    """The merge whose scale is best on some of the adaptation rows, with their labels."""
    states = [merge(case.base, case.experts, method=make(scale)) for scale in SCALES]
    rows = [(inputs[:SCALE_ROWS], classes[:SCALE_ROWS]) for inputs, classes in case.adapt]
    scores = [
        np.mean([row.mean() for row in case.right([case.at(state)] * len(rows), rows).values()]) for state in states
    ]
    return states[int(np.argmax(scores))]


def _plain(case: Case, method: Method) -> Callable[[], State]:
    return lambda: merge(case.base, case.experts, method=method)


def _learned(case: Case, method: Callable[..., State], **options: Any) -> Callable[[], State]:
    found = {"loss": case.unsure, "steps": case.steps} | options
    return lambda: method(case.problem.trunk().eval(), case.base, case.experts, case.together(), **found)


def _concrete(case: Case, **options: Any) -> Callable[[], State]:
    found = {"mask_steps": case.steps, "mask_rate": MASK_RATE, "seed": case.seed} | options
    return _learned(case, concrete_adamerging, **found)


def _unlabelled(case: Case) -> State:
    def logits(call: Callable[[Tensor], Tensor], expert: int, inputs: Tensor) -> Tensor:
        return case.heads[expert](call(inputs))

    labels = PseudoLabels(augment=case.problem.changed, logits=logits, batch=BATCH, seed=case.seed)
    inputs = [rows for rows, _ in case.adapt]
    model = case.problem.trunk().eval()
    return atlas_unlabelled(model, case.base, case.experts, inputs, labels=labels, steps=case.steps)


def _routed(case: Case) -> Any:
    routing = Routing(modules=[case.problem.routed], by="batch", seed=case.seed)
    return wemoe(
        case.problem.trunk().eval(), case.base, case.experts, case.batches(), routing=routing, steps=case.steps,
        rate=ROUTER_RATE, loss=case.unsure_alone,
    )  # fmt: skip
