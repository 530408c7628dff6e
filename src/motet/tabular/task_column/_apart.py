"""A task of a task column as if it were a target of its own: effects, slices and scores are read alike."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from motet._errors import RequestError, suggest
from motet.data import FeatureEncoder
from motet.tabular._labelled import Labelled
from motet.tabular.task_column._served import ServedTasks, TaskAnswer
from motet.tabular.task_column._table import owners_of


@dataclass(frozen=True)
class TaskApart:
    """Answers for one task under its own name.

    Args:
        served: what answers.
        task: name of the task.
    """

    served: ServedTasks
    task: str

    @property
    def encoder(self) -> FeatureEncoder:
        """Of the features, the task column among them."""
        return self.served.encoder

    @property
    def answers(self) -> dict[str, TaskAnswer]:
        """The task as a target of its name."""
        label = self.served.task
        return {self.task: TaskAnswer(replace(label, name=self.task, columns=label.label_columns))}

    def names(self, tasks: Sequence[str] | None) -> list[str]:  # noqa: ARG002
        """The task."""
        return [self.task]

    def estimate(self, frame: pl.DataFrame, tasks: Sequence[str] | None = None) -> dict[str, np.ndarray]:  # noqa: ARG002
        """The rows' estimates; labels say whose a row is."""
        (found,) = self.served.estimate(frame).values()
        return {self.task: found}

    def labelled(self, rows: Labelled) -> Labelled:
        """The same rows; the task has a label where the target has one and the row is the task's.

        Raises:
            RequestError: the table has no row of the task.
        """
        (target,), (present,) = rows.targets.values(), rows.present.values()
        owners = owners_of(rows.frame, self.served.column)
        mine = owners == self.task
        if not mine.any():
            message = (
                f"'{self.task}' is neither the target '{self.served.task.name}' nor a task in '{self.served.column}' "
                f"of this table.{suggest(self.task, np.unique(owners).tolist())}"
            )
            raise RequestError(message)
        task = self.answers[self.task].task
        return replace(rows, tasks={self.task: task}, targets={self.task: target}, present={self.task: present & mine})
