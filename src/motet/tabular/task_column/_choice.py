"""Who serves each task of a task column, by the choose rows alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from motet.tabular._guard import FEWEST_ROWS, Comparison, HeldOut
from motet.tabular.task_column._own import Own
from motet.tabular.task_column._part import Part

BLEND = "mean"  # the mean of the learner of all tasks and of the own model
SERVED = "shared"  # among a part's estimates: what the chosen learner of all tasks says


@dataclass(frozen=True)
class Guard:
    """How the learner of all tasks compares with one task's own model.

    Args:
        comparison: on the task's own choose rows, or on those of all tasks that are not worse alone.
        verdict: `not worse`, `worse` or `not proven`.
        tested: `alone`, or `together` with other tasks.
        rows: choose rows that were compared.
        tasks: how many tasks they belong to.
    """

    comparison: Comparison
    verdict: str
    tested: str
    rows: int
    tasks: int

    def to_dict(self, margin: float) -> dict[str, Any]:
        """A part of `metrics.json`."""
        found = self.comparison
        return {
            "own": Own.name, "margin_percent": margin, "gain_percent": found.gain, "ci95": [found.low, found.high],
            "verdict": self.verdict, "tested": self.tested, "rows": self.rows,
            "tasks": self.tasks,
        }  # fmt: skip


def best_learner(chosen: HeldOut, names: Sequence[str]) -> tuple[str, dict[str, Comparison]]:
    """The learner of all tasks: `pooled`, unless another is proven better; and how the others compare with it."""
    gains = {name: chosen.compare(name, "pooled") for name in names if name != "pooled"}
    proven = {name: gain.gain for name, gain in gains.items() if gain.low > 0}
    return (max(proven, key=lambda name: proven[name]) if proven else "pooled"), gains


@dataclass(frozen=True)
class Sources:
    """Who answers each task, and why.

    Args:
        guards: by task: of the learner of all tasks against the task's own model.
        served_by: by task: `shared`, `own_lightgbm`, or `mean`, that of the two.
        blend: how the blend compares with the own models, where it was tried.
    """

    guards: dict[str, Guard]
    served_by: dict[str, str]
    blend: Guard | None

    def of(self, source: str) -> frozenset[str]:
        """The tasks that are answered so."""
        return frozenset(name for name, found in self.served_by.items() if found == source)


def guard_tasks(part: Part, names: Sequence[str], margin: float, *, blends: bool = True) -> Sources:
    """Each task's guard: by its own choose rows where these are 20 or more and settle it, else with the other tasks.

    A task whose own rows say neither "worse" nor "not worse" is tested together with all tasks but those that are
    worse alone: one comparison over their rows. The promise then holds for these tasks as a group, not for each. Where
    that settles nothing either, the mean of the two models is tested in the same way: it differs from the own models by
    half, so that rows that are too few for the one may prove the other.

    Args:
        part: the choose rows, with the estimates of `shared`, of the own models and of the blend.
        names: of the tasks that were learned.
        margin: percent by which what serves may be worse.
        blends: whether the mean may serve; without it each task is answered by one model.
    """
    alone = {name: _guard(part, SERVED, [name], margin) for name in names}
    settled = {name: guard for name, guard in alone.items() if guard.verdict != "not proven"}
    group = [name for name in names if alone[name].verdict != "worse"]
    together = _guard(part, SERVED, group, margin) if len(settled) < len(names) and len(group) > 1 else None
    guards = alone if together is None else dict.fromkeys(group, together) | settled
    served_by = {name: SERVED if guard.verdict == "not worse" else Own.name for name, guard in guards.items()}
    blend = None
    if blends and any(guard.verdict == "not proven" for guard in guards.values()):
        blend = _guard(part, BLEND, group, margin)
        if blend.verdict == "not worse":
            served_by |= {name: BLEND for name, guard in guards.items() if guard.verdict == "not proven"}
    return Sources({name: guards[name] for name in names}, served_by, blend)


def _guard(part: Part, first: str, names: Sequence[str], margin: float) -> Guard:
    mask = np.isin(part.owners, names)
    comparison = Comparison(np.nan, np.nan, np.nan)
    if mask.sum() >= FEWEST_ROWS:  # fewer prove nothing, and there may be thousands of such tasks
        comparison = part.held_out(mask).compare(first, Own.name)
    tested = "alone" if len(names) == 1 else "together"
    return Guard(comparison, comparison.verdict(margin), tested, int(mask.sum()), len(names))
