"""What can learn all tasks of a task column together: two ways of boosting, and two networks."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from motet.data import TableRows
from motet.models import MultiTaskModel
from motet.tabular._network import NetworkShape, loop_for, shape_for, train_network
from motet.tabular._prepared import Prepared, join
from motet.tabular.boosting import RMTGB, TaskRows
from motet.tabular.boosting._rows import codes_of
from motet.tabular.task_column._gather import own_heads
from motet.tabular.task_column._table import Encoded, TaskTable, without_column
from motet.tasks import Task
from motet.tasks import from_dict as task_from_dict
from motet.train import Clock, Emit, estimate

MOST_HEADS = 200


@dataclass(frozen=True)
class Budget:
    """What a learner may use.

    Args:
        clock: seconds there are.
        seed: of everything.
        threads: processor threads of the trees.
        max_epochs: of a network, or None to suit the table.
        emit: takes the records of the log, or None.
        checkpoint: what a network that was interrupted goes on from, or None.
    """

    clock: Clock
    seed: int
    threads: int
    max_epochs: int | None
    emit: Emit | None = None
    checkpoint: Path | None = None


class Learner(ABC):
    """A fitted model of all tasks.

    Attributes:
        passed: rows that went through it in training, each time counted.
    """

    name: ClassVar[str]
    passed: int = 0

    @classmethod
    @abstractmethod
    def fit(cls, table: TaskTable, budget: Budget) -> Self:
        """Learns the train rows and stops on the stop rows."""

    @abstractmethod
    def estimate(self, rows: Encoded) -> np.ndarray:
        """Estimates, (N,) or (N, C); a row of an unknown task gets what the tasks have in common."""

    @abstractmethod
    def to_files(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """JSON data, and tensors."""

    @classmethod
    @abstractmethod
    def from_files(cls, task: Task, document: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """Reads what `to_files` gave."""


class Robust(Learner):
    """R-MTGB: trees in blocks, with the tasks split where that pays."""

    name = "robust"
    plans: ClassVar[tuple[str, ...]] = ("blocks", "small", "task")

    def __init__(self, model: RMTGB) -> None:
        self.model = model

    @classmethod
    def fit(cls, table: TaskTable, budget: Budget) -> Self:
        parts = []
        for part in ("train", "stop"):
            rows = table.labelled(part)
            encoded = table.encoded.take(rows)
            num_categories = encoded.without.categories.shape[1]
            parts.append(TaskRows(join(encoded.without), encoded.owners, table.targets(rows), num_categories))
        model, passed = RMTGB.fit(
            table.task, *parts, seed=budget.seed, clock=budget.clock, threads=budget.threads, plans=cls.plans
        )
        found = cls(model)
        found.passed = passed
        return found

    def estimate(self, rows: Encoded) -> np.ndarray:
        return self.model.estimate(join(rows.without), rows.owners)

    def to_files(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        return {"plan": self.model.plan}, {
            "trees": torch.frombuffer(bytearray(self.model.to_bytes()), dtype=torch.uint8)
        }

    @classmethod
    def from_files(cls, task: Task, document: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:  # noqa: ARG003
        return cls(RMTGB.from_bytes(task, tensors["trees"].numpy().tobytes()))


class Pooled(Robust):
    """LightGBM on all rows with the task as a category: what one would use without motet."""

    name = "pooled"
    plans = ("small", "task")


class Embedding(Learner):
    """One network for all rows, with the task as a category; an unknown task shares the code of rare ones."""

    name = "embedding"

    def __init__(self, model: MultiTaskModel, shape: NetworkShape) -> None:
        self.model, self.shape = model.eval(), shape

    @classmethod
    def fit(cls, table: TaskTable, budget: Budget) -> Self:
        return cls._trained(table.prepared, [table.task], budget)

    def estimate(self, rows: Encoded) -> np.ndarray:
        (name,) = self.model.tasks
        return estimate(self.model, TableRows(rows.with_task, {}, {}), np.arange(len(rows.owners)))[name]

    def to_files(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        return {"shape": self.shape.to_dict(), "tasks": [task.to_dict() for task in self.model.tasks.values()]}, {
            f"network.{name}": value for name, value in self.model.state_dict().items()
        }

    @classmethod
    def from_files(cls, task: Task, document: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:  # noqa: ARG003
        shape = NetworkShape.from_dict(document["shape"])
        model = shape.build([task_from_dict(data) for data in document["tasks"]])
        model.load_state_dict({name.removeprefix("network."): value for name, value in tensors.items()})
        return cls(model, shape)

    @classmethod
    def _trained(cls, prepared: Prepared, tasks: list[Task], budget: Budget) -> Self:
        """A network at the best state of its tasks together."""
        shape = shape_for(prepared)
        trained = train_network(
            prepared, tasks, shape=shape, balance="equal", clock=budget.clock, stage=cls.name,
            settings=loop_for(len(prepared.split.train), max_epochs=budget.max_epochs, seed=budget.seed),
            emit=budget.emit or (lambda _: None), device=torch.device("cpu"), checkpoint=budget.checkpoint,
        )  # fmt: skip
        model = shape.build(tasks)
        model.load_state_dict(trained.trained.best.joint_state)
        found = cls(model, shape)
        found.passed = trained.trained.cost.rows
        return found


class Heads(Embedding):
    """One network without the task column and a head for each task: a wide table of which each row has one label."""

    name = "heads"

    @classmethod
    def fit(cls, table: TaskTable, budget: Budget) -> Self:
        """Learns; the tasks' classes, centre and scale are common, since most have too few rows for their own."""
        names = np.unique(table.encoded.owners[table.labelled("train")]).tolist()
        tasks = [replace(table.task, name=name, columns=table.task.label_columns) for name in names]
        values = table.prepared.rows.targets[table.task.name].numpy()
        known = table.prepared.rows.present[table.task.name].numpy()
        present = {name: known & (table.encoded.owners == name) for name in names}
        rows = TableRows(table.encoded.without, dict.fromkeys(names, values), present)
        wide = replace(
            table.prepared, tasks=tasks, encoder=without_column(table.prepared.encoder, table.column),
            features=table.encoded.without, rows=rows,
        )  # fmt: skip
        return cls._trained(wide, tasks, budget)

    def estimate(self, rows: Encoded) -> np.ndarray:
        """Each row's by its own task's head; of an unknown task, the mean over all heads."""
        return own_heads(self.model, rows.without, codes_of(rows.owners, list(self.model.tasks)))


LEARNERS: dict[str, type[Learner]] = {kind.name: kind for kind in (Pooled, Robust, Embedding, Heads)}
