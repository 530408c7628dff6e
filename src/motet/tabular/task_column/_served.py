"""What a fitted task-column model keeps to answer, and its form on disk."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from torch import Tensor

from motet._errors import RequestError, suggest
from motet.data import FeatureEncoder
from motet.tabular.task_column._choice import BLEND
from motet.tabular.task_column._learners import LEARNERS, Learner
from motet.tabular.task_column._own import Own
from motet.tabular.task_column._table import Encoded, owners_of, without_column
from motet.tasks import Calibration, Interval, Task
from motet.tasks import from_dict as task_from_dict

COMMON = "common"  # who answers for a task that was not learned


@dataclass(frozen=True)
class TaskAnswer:
    """How the target is answered.

    Args:
        task: the fitted target.
    """

    task: Task


@dataclass(frozen=True)
class ServedTasks:
    """The learner of all tasks, and the own models of those tasks that it would have harmed.

    Args:
        task: the fitted target.
        column: the task column.
        encoder: of the features, the task column among them.
        known: names of the tasks that were learned.
        shared: the learner of all tasks.
        own: the own models of the tasks that keep theirs or are blended.
        blended: those of them that are answered by the mean of their own model and of `shared`.
        calibrations: of `shared` and of the own models, by their names.
        intervals: by task, of those with choose rows enough.
        interval: of all other tasks, or None.
    """

    task: Task
    column: str
    encoder: FeatureEncoder
    known: frozenset[str]
    shared: Learner
    own: Own
    blended: frozenset[str]
    calibrations: Mapping[str, Calibration]
    intervals: Mapping[str, Interval]
    interval: Interval | None

    @property
    def answers(self) -> dict[str, TaskAnswer]:
        """The one target, by name."""
        return {self.task.name: TaskAnswer(self.task)}

    def names(self, tasks: Sequence[str] | None) -> list[str]:
        """The target, checked."""
        for name in tasks or ():
            if name != self.task.name:
                message = f"This model has no target '{name}'.{suggest(name, [self.task.name])}"
                raise RequestError(message)
        return [self.task.name]

    def estimate(self, frame: pl.DataFrame, tasks: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Calibrated estimates of the target, under its name."""
        (name,) = self.names(tasks)
        owners = owners_of(frame, self.column)
        without = without_column(self.encoder, self.column)
        rows = Encoded(self.encoder.transform(frame), without.transform(frame), owners)
        return {name: self._mixed(rows, self.sources(owners))}

    def _mixed(self, rows: Encoded, sources: np.ndarray) -> np.ndarray:
        """Each model answers for the rows that need it; a blended row is half of each."""
        found: np.ndarray | None = None
        for learner, alone in ((self.shared, np.isin(sources, ["shared", COMMON])), (self.own, sources == Own.name)):
            places = np.flatnonzero(alone | (sources == BLEND))
            if len(places) or not len(sources):
                answers = self._side(learner, rows.take(places))
                found = np.zeros((len(sources), *answers.shape[1:])) if found is None else found
                parts = np.where(sources[places] == BLEND, 0.5, 1.0)
                found[places] += answers * parts.reshape(-1, *[1] * (answers.ndim - 1))
        return np.asarray(found)

    def _side(self, learner: Learner, rows: Encoded) -> np.ndarray:
        return self.calibrations[learner.name].apply(learner.estimate(rows))

    def sources(self, owners: np.ndarray) -> np.ndarray:
        """Who answers each row (N,): `shared`, `own_lightgbm`, `mean`, or `common` where the task was not learned."""
        found = np.where(np.isin(owners, list(self.own.constants)), Own.name, "shared").astype("<U12")
        found[np.isin(owners, list(self.blended))] = BLEND
        return np.where(np.isin(owners, list(self.known)), found, COMMON)

    def bounds(self, estimates: np.ndarray, owners: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """The ends (N,) of each row's interval, by its task's errors; None where there is no interval."""
        if self.interval is None:
            return None
        low, high = self.interval.bounds(estimates)
        for name in set(np.unique(owners).tolist()) & set(self.intervals):
            places = np.flatnonzero(owners == name)
            low[places], high[places] = self.intervals[name].bounds(estimates[places])
        return low, high

    def to_files(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The JSON part, for `run.json`, and the tensors, for `model.safetensors`."""
        shared, tensors = self.shared.to_files()
        own, trees = self.own.to_files()
        serving = {
            "column": self.column,
            "known": sorted(self.known),
            "learner": self.shared.name,
            "shared": shared,
            "own": own,
            "blended": sorted(self.blended),
            "calibrations": {name: one.to_dict() for name, one in self.calibrations.items()},
            "intervals": {name: one.to_dict() for name, one in self.intervals.items()},
            "interval": None if self.interval is None else self.interval.to_dict(),
        }
        document = {"features": self.encoder.to_dict(), "tasks": [self.task.to_dict()], "task_column": serving}
        return document, tensors | trees

    @classmethod
    def from_files(cls, document: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> "ServedTasks":
        """Reads what `to_files` gave."""
        task, data = task_from_dict(document["tasks"][0]), document["task_column"]
        parts = {name: value for name, value in tensors.items() if not name.startswith("own.")}
        return cls(
            task, data["column"], FeatureEncoder.from_dict(document["features"]), frozenset(data["known"]),
            LEARNERS[data["learner"]].from_files(task, data["shared"], parts),
            Own.from_files(task, data["own"], tensors), frozenset(data["blended"]),
            {name: Calibration.from_dict(one) for name, one in data["calibrations"].items()},
            {name: Interval.from_dict(one) for name, one in data["intervals"].items()},
            None if data["interval"] is None else Interval.from_dict(data["interval"]),
        )  # fmt: skip
