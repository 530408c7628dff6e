"""Each task's own model: what sharing has to be as good as."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from motet.tabular._boosting import Boosting, BoostingRows
from motet.tabular._own_trees import as_tensor
from motet.tabular._prepared import join
from motet.tabular.boosting._rows import codes_of
from motet.tabular.task_column._learners import Budget, Learner
from motet.tabular.task_column._table import Encoded, TaskTable
from motet.tasks import Task


class Own(Learner):
    """A LightGBM for each task on its own rows alone; a constant where those are all alike.

    Args:
        trees: by task.
        constants: the best constant (1,) or (1, C) of each task's train rows.
        constant: that of all train rows, for a task without any.
    """

    name = "own_lightgbm"

    def __init__(
        self, trees: Mapping[str, Boosting], constants: Mapping[str, np.ndarray], constant: np.ndarray
    ) -> None:
        self.trees, self.constants, self._constant = dict(trees), dict(constants), constant

    @classmethod
    def fit(cls, table: TaskTable, budget: Budget) -> Self:
        """Trains one task after the other; those that the clock leaves no time for keep their constant."""
        train, stop = (table.labelled(part) for part in ("train", "stop"))
        train_owners, stop_owners = table.encoded.owners[train], table.encoded.owners[stop]
        names = np.unique(train_owners).tolist()
        found = cls({}, {}, table.task.baseline(table.targets(train)))
        for number, name in enumerate(names):
            rows = train[train_owners == name]
            targets = table.targets(rows)
            found.constants[name] = table.task.baseline(targets)
            if len(np.unique(targets)) < 2 or budget.clock.left <= 0:
                continue
            parts = [_rows(table, part) for part in (rows, stop[stop_owners == name])]
            share = budget.clock.part(min(1.0, 2.0 / (len(names) - number)))
            trees, passed = Boosting.fit(table.task, *parts, seed=budget.seed, clock=share, threads=budget.threads)
            found.trees[name] = trees
            found.passed += passed
        return found

    def constant(self, owners: np.ndarray) -> np.ndarray:
        """The best constant of each row's task, (N,) or (N, C)."""
        codes = codes_of(owners, list(self.constants))
        return np.concatenate([*self.constants.values(), self._constant])[codes]

    def estimate(self, rows: Encoded) -> np.ndarray:
        found = np.asarray(self.constant(rows.owners), dtype=np.float64)
        matrix, threads = join(rows.without), torch.get_num_threads()
        for name in np.unique(rows.owners).tolist():
            if name in self.trees:
                places = np.flatnonzero(rows.owners == name)
                found[places] = self.trees[name].estimate(matrix[places], threads=threads)
        return found

    def only(self, names: frozenset[str]) -> "Own":
        """The models of some tasks."""
        return Own(
            {name: trees for name, trees in self.trees.items() if name in names},
            {name: constant for name, constant in self.constants.items() if name in names},
            self._constant,
        )

    def to_files(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        constants = {name: constant.tolist() for name, constant in self.constants.items()}
        document = {"trees": list(self.trees), "constants": constants, "constant": self._constant.tolist()}
        return document, {
            f"own.{place}": as_tensor(trees.to_bytes()) for place, trees in enumerate(self.trees.values())
        }

    @classmethod
    def from_files(cls, task: Task, document: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        trees = {
            name: Boosting.from_bytes(task, tensors[f"own.{place}"].numpy().tobytes())
            for place, name in enumerate(document["trees"])
        }
        constants = {name: np.array(constant) for name, constant in document["constants"].items()}
        return cls(trees, constants, np.array(document["constant"]))


def _rows(table: TaskTable, rows: np.ndarray) -> BoostingRows:
    features = table.encoded.without.take(rows)
    return BoostingRows(join(features), table.targets(rows), features.categories.shape[1])
