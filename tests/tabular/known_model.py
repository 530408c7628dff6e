"""A served model whose formula is known, so that what it needs can be worked out by hand."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import polars as pl

from motet.data import FeatureEncoder, fit_tasks, infer_schema
from motet.tabular._labelled import Labelled
from motet.tasks import Task


@dataclass(frozen=True)
class KnownModel:
    """Answers by formulas of the raw columns; its features are the table's other columns."""

    encoder: FeatureEncoder
    answers: Mapping[str, SimpleNamespace]
    formulas: Mapping[str, Callable[[pl.DataFrame], np.ndarray]]

    @classmethod
    def of(
        cls, frame: pl.DataFrame, tasks: list[Task], formulas: Mapping[str, Callable[[pl.DataFrame], np.ndarray]]
    ) -> "KnownModel":
        rows = np.arange(frame.height)
        encoder = FeatureEncoder.fit(frame, infer_schema(frame, tasks), rows)
        answers = {task.name: SimpleNamespace(task=task) for task in fit_tasks(frame, tasks, rows)}
        return cls(encoder, answers, formulas)

    def names(self, tasks=None):
        return list(tasks or self.answers)

    def estimate(self, frame, tasks=None):
        return {name: self.formulas[name](frame) for name in self.names(tasks)}

    def labelled(self, frame: pl.DataFrame, group: str | None = None) -> Labelled:
        return Labelled.read(self, frame, None, {"how": "group", "column": group} if group else {})
