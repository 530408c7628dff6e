"""A run of either form, as what it answers with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from motet.tabular import TabularModel, TaskColumnModel, load
from motet.tabular.task_column._model import FORM
from motet.tabular.task_column._old import OLD
from motet.train import RunDirectory


def open_run(path: str | Path) -> TabularModel | TaskColumnModel:
    """The model of a run, with a task column or without.

    Raises:
        RequestError: not a run directory.
        RunError: the run is unfinished or damaged.
    """
    if (Path(path) / OLD).is_file() or RunDirectory.open(path)[1].get("form") == FORM:
        return TaskColumnModel.load(path)
    return load(path)


def classes_of(model: TabularModel | TaskColumnModel) -> Mapping[str, tuple[Any, ...]]:
    """The classes or labels of each target that has them.

    Raises:
        RequestError: the model is not fitted.
    """
    if isinstance(model, TabularModel):
        return model.classes_
    classes = getattr(model.task_, "classes", None)
    return {model.task_.name: tuple(classes)} if classes else {}
