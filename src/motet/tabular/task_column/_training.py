"""Trains the learners one after the other, and keeps each that is done for a fit that goes on later."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from motet.tabular._log import RunLog
from motet.tabular.task_column._learners import LEARNERS, MOST_HEADS, Budget, Learner
from motet.tabular.task_column._own import Own
from motet.tabular.task_column._table import TaskTable
from motet.train import Clock, Cost, Meter, read_tensors, write_tensors

SHARE = 0.9  # of the time limit; the rest is for choosing and writing
WORDS = {
    "pooled": "LightGBM on all rows",
    "own_lightgbm": "each task's own LightGBM",
    "robust": "robust boosting over tasks",
    "embedding": "one network with the task as a category",
    "heads": "one network with a head for each task",
}


class Training:
    """The learners of one fit.

    Args:
        table: the table.
        learners: their names.
        seed: of everything.
        max_epochs: of the networks, or None.
        work: folder for what is done, or None.
        log: takes the records.

    Attributes:
        costs: by learner.
        notes: what a reader should know.
    """

    def __init__(
        self, table: TaskTable, learners: tuple[str, ...], *, seed: int, max_epochs: int | None, work: Path | None,
        log: RunLog,
    ) -> None:  # fmt: skip
        self.table, self.seed, self.max_epochs, self.work, self.log = table, seed, max_epochs, work, log
        self.costs: dict[str, Cost] = {}
        self.notes: list[str] = []
        self.names = ["pooled", Own.name, *(name for name in learners if name != "pooled")]
        num_tasks = len(np.unique(table.encoded.owners[table.labelled("train")]))
        if num_tasks > MOST_HEADS and "heads" in self.names:
            self.names.remove("heads")
            self.notes.append(f"A head for each of {num_tasks} tasks was left out; up to {MOST_HEADS} are tried.")

    def fit(self, clock: Clock) -> dict[str, Learner]:
        """The learners by name, each within its share of the time; without time left, only what has to be there."""
        found: dict[str, Learner] = {}
        for number, name in enumerate(self.names):
            kind = Own if name == Own.name else LEARNERS[name]
            path = None if self.work is None else self.work / f"{name}.safetensors"
            if path is not None and path.is_file():
                found[name], self.costs[name] = _read(kind, self.table, path)
                continue
            if clock.left <= 0 and number > 1:
                self.notes.append(f"The time limit left none for {WORDS[name]}. A longer one lets it be tried.")
                continue
            self.log({"event": "stage", "stage": name, "text": f"Training {WORDS[name]}"})
            budget = Budget(
                clock.part(SHARE / (len(self.names) - number)), self.seed, torch.get_num_threads(), self.max_epochs,
                self.log, None if self.work is None else self.work / f"{name}-begun.safetensors",
            )  # fmt: skip
            meter = Meter()
            found[name] = kind.fit(self.table, budget)
            self.costs[name] = meter.read(found[name].passed)
            if path is not None:
                _write(found[name], self.costs[name], path)
        return found


def _write(learner: Learner, cost: Cost, path: Path) -> None:
    document, tensors = learner.to_files()
    write_tensors(path, tensors, {"learner": json.dumps(document), "cost": json.dumps(asdict(cost))})


def _read(kind: type[Learner], table: TaskTable, path: Path) -> tuple[Learner, Cost]:
    tensors, metadata = read_tensors(path)
    cost = Cost(**json.loads(metadata["cost"]))
    learner = kind.from_files(table.task, json.loads(metadata["learner"]), tensors)
    learner.passed = cost.rows
    return learner, cost
