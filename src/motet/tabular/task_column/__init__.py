"""Tables with a task column: each row belongs to one task, and there is one label."""

from motet.tabular.task_column._model import TaskColumnModel

__all__ = ["TaskColumnModel"]
