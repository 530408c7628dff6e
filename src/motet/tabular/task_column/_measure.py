"""What the choice is worth on rows that nothing has seen: `metrics.json` of a run with a task column."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np

from motet.tabular._guard import FEWEST_ROWS, Comparison, HeldOut
from motet.tabular._outcome import plain
from motet.tabular.task_column._choice import BLEND, SERVED, Sources, best_learner, guard_tasks
from motet.tabular.task_column._learners import Learner
from motet.tabular.task_column._own import Own
from motet.tabular.task_column._part import Part
from motet.tabular.task_column._served import COMMON, ServedTasks
from motet.tabular.task_column._table import TaskTable
from motet.tasks import Calibration, Interval, Task, fit_calibration, fit_interval
from motet.train import Cost

ANSWER = "motet"  # among a part's estimates: what each row is answered with
OVERALL = "by task"  # who serves all rows together
PARTS = ("train", "stop", "choose", "test")


@dataclass(frozen=True)
class Rules:
    """How the guard decides and what is promised.

    Args:
        margin: percent by which the learner of all tasks may be worse than a task's own model.
        level: share of rows that an interval is to cover.
        resamples: of the bootstrap.
        seed: of the resamples.
        blends: whether the mean of the learner and the own model may serve a task.
    """

    margin: float = 0.5
    level: float = 0.9
    resamples: int = 500
    seed: int = 0
    blends: bool = True


@dataclass(frozen=True)
class Measured:
    """What came of the choice.

    Args:
        served: what answers from now on.
        metrics: `metrics.json`, but for what was spent.
    """

    served: ServedTasks
    metrics: dict[str, Any]


class Choice:
    """Chooses among fitted learners on the choose rows, and measures on the test rows.

    Args:
        table: the table.
        fitted: the learners of all tasks and the own models, by name.
        rules: how to decide.
    """

    def __init__(self, table: TaskTable, fitted: Mapping[str, Learner], rules: Rules) -> None:
        self.table, self.fitted, self.rules, self.task = table, dict(fitted), rules, table.task
        self.own = cast("Own", fitted[Own.name])
        self.names = sorted(self.own.constants)
        self.shared_names = [name for name in fitted if name != Own.name]
        self.calibrations: dict[str, Calibration] = {}
        self.choose = self._part("choose", rules.seed)
        self.test = self._part("test", rules.seed + 1)

    def measure(self) -> Measured:
        """Who serves, and what it is worth."""
        learner, gains = best_learner(self.choose.held_out(), self.shared_names)
        for part in (self.choose, self.test):
            part.estimates[SERVED] = part.estimates[learner]
            part.estimates[BLEND] = 0.5 * (part.estimates[learner] + part.estimates[Own.name])
        sources = guard_tasks(self.choose, self.names, self.rules.margin, blends=self.rules.blends)
        for part in (self.choose, self.test):
            part.estimates[ANSWER] = mixed(part, sources)
        intervals, interval = self._intervals()
        served = ServedTasks(
            self.task, self.table.column, self.table.prepared.encoder, frozenset(self.names), self.fitted[learner],
            self.own.only(sources.of(Own.name) | sources.of(BLEND)), sources.of(BLEND),
            {name: self.calibrations[name] for name in (learner, Own.name)}, intervals, interval,
        )  # fmt: skip
        return Measured(served, plain(self._document(served, learner, gains, sources)))

    def _part(self, name: str, seed: int) -> Part:
        """A part's calibrated estimates; the choose rows, which come first, calibrate."""
        rows = self.table.labelled(name)
        encoded, targets = self.table.encoded.take(rows), self.table.targets(rows)
        estimates: dict[str, np.ndarray] = {"constant": self.own.constant(encoded.owners)}
        for learner_name, learner in self.fitted.items():
            raw = learner.estimate(encoded)
            if learner_name not in self.calibrations:
                self.calibrations[learner_name] = fit_calibration(self.task, raw, targets)
            estimates[learner_name] = self.calibrations[learner_name].apply(raw)
        return Part(self.table, rows, estimates, resamples=self.rules.resamples, seed=seed)

    def _intervals(self) -> tuple[dict[str, Interval], Interval | None]:
        """Of each task with rows enough, and of all others together."""
        part, found = self.choose, dict[str, Interval]()
        names, counts = np.unique(part.owners, return_counts=True)
        for name in names[counts >= FEWEST_ROWS].tolist():
            one = self._interval(part.owners == name)
            if one is not None and name in self.own.constants:
                found[name] = one
        rest = ~np.isin(part.owners, list(found))
        return found, self._interval(rest) or self._interval(np.ones(len(rest), dtype=bool))

    def _interval(self, mask: np.ndarray) -> Interval | None:
        answers = self.choose.estimates[ANSWER][mask]
        return fit_interval(self.task, answers, self.choose.targets[mask], level=self.rules.level)

    def _document(
        self, served: ServedTasks, learner: str, gains: Mapping[str, Comparison], sources: Sources
    ) -> dict[str, Any]:
        task, everything = self.task, self.test.held_out()
        over_pooled = everything.compare(ANSWER, "pooled")
        owners = self.table.encoded.owners
        labelled = {part: owners[self.table.labelled(part)] for part in PARTS}
        tasks = {
            name: self._one(name, served, sources, labelled)
            for name in np.unique(np.concatenate(list(labelled.values()))).tolist()
        }
        known = [one["gain_percent"] for one in tasks.values() if one["ci95"] and np.isfinite(one["gain_percent"])]
        overall = self._compared(self.choose.held_out(), everything, self.fitted) | {"served_by": OVERALL}
        overall["candidates"][OVERALL] = _candidate(task, everything, ANSWER)
        return {
            "format": 1, "form": "task_column", "target": task.name, "task_column": served.column, "kind": task.kind,
            "metric": task.metric, "higher_is_better": task.higher_is_better, "served_by": learner,
            "gain_percent": over_pooled.gain + 0.0, "ci95": [over_pooled.low + 0.0, over_pooled.high + 0.0],
            "overall": overall,
            "learners": {name: {
                "test": _score(everything, name),
                "choose_gain_percent": gains[name].gain + 0.0 if name in gains else None,
                "choose_ci95": [gains[name].low + 0.0, gains[name].high + 0.0] if name in gains else None,
            } for name in self.shared_names},
            "tasks": tasks,
            "delta_m_percent": float(np.mean(known)) if known else None,
            "rows": {part: len(rows) for part, rows in labelled.items()},
        }  # fmt: skip

    def _one(
        self, name: str, served: ServedTasks, sources: Sources, labelled: Mapping[str, np.ndarray]
    ) -> dict[str, Any]:
        """One task's part; where it has fewer than 20 test rows there are scores and no comparison."""
        mask, guard = self.test.owners == name, sources.guards.get(name)
        tested, chosen = self.test.held_out(mask), self.choose.held_out(self.choose.owners == name)
        document = self._compared(chosen, tested, (SERVED, Own.name, BLEND) if guard else (SERVED,))
        if tested.proves_nothing:
            document |= {"gain_percent": None, "ci95": None}
        if not guard:
            document |= {"single_task": None, "gain_percent": None, "ci95": None}
        source = sources.served_by.get(name, COMMON)
        if source == BLEND and sources.blend is not None:
            document["blend"] = sources.blend.to_dict(self.rules.margin)
        return document | {
            "rows": int(mask.sum()), "train_rows": int((labelled["train"] == name).sum()), "served_by": source,
            "pooled": _score(tested, "pooled"),
            "learners": {learner: _score(tested, learner) for learner in self.shared_names},
            "guard": guard.to_dict(self.rules.margin) if guard else {},
        } | self._coverage(served, mask)  # fmt: skip

    def _compared(self, chosen: HeldOut, tested: HeldOut, candidates: Any) -> dict[str, Any]:
        """Scores on the test rows, and what serves against the own models."""
        task, gain = self.task, tested.compare(ANSWER, Own.name)
        skill, again = tested.skill(ANSWER, "constant"), chosen.skill(ANSWER, "constant")[0]
        return {
            "kind": task.kind, "metric": task.metric, "higher_is_better": task.higher_is_better,
            "unit": getattr(task, "unit", ""), "constant": _score(tested, "constant"), "skill_ci95": list(skill),
            "predictable": None if np.isnan(skill[0]) else bool(skill[0] > 0 and not again <= 0),
            "single_task": _score(tested, Own.name), "motet": _score(tested, ANSWER),
            "gain_percent": gain.gain + 0.0, "ci95": [gain.low + 0.0, gain.high + 0.0],  # no minus zero
            "candidates": {name: _candidate(task, tested, name) for name in candidates},
        }  # fmt: skip

    def _coverage(self, served: ServedTasks, mask: np.ndarray) -> dict[str, Any]:
        """How many of a task's test rows its intervals hold; nothing for a task with classes or few rows."""
        found = served.bounds(self.test.estimates[ANSWER][mask], self.test.owners[mask])
        if found is None or mask.sum() < FEWEST_ROWS:
            return {}
        low, high = found
        inside = (self.test.targets[mask] >= low) & (self.test.targets[mask] <= high)
        width = float((high - low).mean())
        return {"interval": {"level": self.rules.level, "coverage": float(inside.mean()), "mean_width": width}}


def mixed(part: Part, sources: Sources) -> np.ndarray:
    """Each row's answer, by what serves its task."""
    found = part.estimates[SERVED].copy()
    for source in (Own.name, BLEND):
        rows = np.isin(part.owners, list(sources.of(source)))
        found[rows] = part.estimates[source][rows]
    return found


def costs_document(costs: Mapping[str, Cost], total: float) -> dict[str, Any]:
    """What each learner cost."""
    return plain({
        "seconds": {name: cost.seconds for name, cost in costs.items()} | {"total": total},
        "compute": {name: asdict(cost) for name, cost in costs.items()},
    })  # fmt: skip


def _score(held: HeldOut, name: str) -> float | None:
    return float(held.score(name)[0]) if len(held.targets) else None


def _candidate(task: Task, held: HeldOut, name: str) -> dict[str, Any]:
    metrics = task.metrics(held.estimates[name], held.targets) if len(held.targets) else {}
    return {"score": _score(held, name), "metrics": metrics}
