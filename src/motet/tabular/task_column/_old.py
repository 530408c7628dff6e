"""Reads the form that a task-column model was written in before it was a run: `task_column.json`."""

from pathlib import Path
from typing import Any

import numpy as np

from motet.data import FeatureEncoder
from motet.tabular.task_column._learners import LEARNERS
from motet.tabular.task_column._own import Own
from motet.tabular.task_column._served import ServedTasks
from motet.tasks import Calibration
from motet.tasks import from_dict as task_from_dict
from motet.train import read_json, read_tensors

OLD = "task_column.json"


def read_old(folder: Path) -> tuple[ServedTasks, dict[str, Any], dict[str, Any]]:
    """What answers, and what is known of the run: there were no own models, calibrations and intervals."""
    data = read_json(folder / OLD)
    tensors, _ = read_tensors(folder / "model.safetensors")
    task, name = task_from_dict(data["task"]), data["metrics"]["served_by"]
    learner = LEARNERS[name].from_files(task, data["learner"], tensors)
    served = ServedTasks(
        task, data["task_column"], FeatureEncoder.from_dict(data["features"]), frozenset(data["known"]), learner,
        Own({}, {}, np.zeros(1)), frozenset(), {name: Calibration(), Own.name: Calibration()}, {}, None,
    )  # fmt: skip
    document = {"form": "task_column"} | {key: data[key] for key in ("seed", "notes", "readings")}
    return served, document, data["metrics"]
