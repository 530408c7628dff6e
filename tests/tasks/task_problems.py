"""One problem of every kind of task: the task, its labels, and which rows have one."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from motet.tasks import Binary, Count, Multiclass, Multilabel, Ordinal, Quantile, Regression, Task


@dataclass(frozen=True)
class Problem:
    task: Task
    values: np.ndarray
    present: np.ndarray

    @property
    def fitted(self) -> Task:
        return self.task.fit(self.values, self.present)

    @property
    def targets(self) -> np.ndarray:
        targets, known = self.fitted.encode(self.values, self.present)
        return targets[known]


def _lists(generator: np.random.Generator, rows: int) -> np.ndarray:
    values = np.empty(rows, dtype=object)
    for row in range(rows):
        values[row] = [label for label in ("x", "y", "z") if generator.random() < 0.4]
    return values


def _cells(generator: np.random.Generator, rows: int) -> np.ndarray:
    cells = (generator.random((rows, 3)) < 0.4).astype(float)
    cells[generator.random((rows, 3)) < 0.2] = np.nan
    return cells


PROBLEMS: dict[str, tuple[Task, Callable[[np.random.Generator, int], np.ndarray]]] = {
    "regression": (Regression("y", unit="EUR"), lambda g, n: g.normal(50.0, 7.0, n)),
    "binary": (Binary("y"), lambda g, n: g.choice(["no", "yes"], n, p=[0.7, 0.3])),
    "multiclass": (Multiclass("y"), lambda g, n: g.choice(["a", "b", "c"], n, p=[0.5, 0.3, 0.2])),
    "multilabel_cells": (Multilabel("y", columns=("l0", "l1", "l2")), _cells),
    "multilabel_lists": (Multilabel("y"), _lists),
    "ordinal": (Ordinal("y"), lambda g, n: g.choice([1, 2, 3, 5], n, p=[0.4, 0.3, 0.2, 0.1])),
    "poisson": (Count("y"), lambda g, n: g.poisson(3.0, n)),
    "negative_binomial": (Count("y", family="negative_binomial"), lambda g, n: g.negative_binomial(2, 0.2, n)),
    "quantile": (Quantile("y"), lambda g, n: g.normal(50.0, 7.0, n)),
    "quantile_high": (Quantile("y", levels=(0.5, 0.9, 0.99)), lambda g, n: g.normal(50.0, 7.0, n)),
}


def make_problem(name: str) -> Problem:
    task, draw = PROBLEMS[name]
    generator = np.random.default_rng(0)
    values = draw(generator, 400)
    return Problem(task, values, generator.random(400) < 0.8)
