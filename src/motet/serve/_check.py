"""Whether a graph says what the model says, row by row."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from motet._errors import RunError, require
from motet.serve._columns import feed
from motet.tasks import Task

if TYPE_CHECKING:
    from motet.tabular._served import Served
    from motet.tabular.task_column._served import ServedTasks

ALONE = 10  # rows that are also asked for one by one


def differences(
    document: bytes, served: "Served | ServedTasks", frame: pl.DataFrame, names: list[str]
) -> dict[str, float]:
    """The largest difference of each target's estimates between ONNX Runtime and the model.

    Numbers are in units of the target's scale or, where that is more, of the estimate itself; probabilities as they
    are. Some rows are also asked for one by one, for an answer must not depend on its batch.
    """
    runtime = require("onnxruntime", "onnx")
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = runtime.InferenceSession(document, options, providers=["CPUExecutionProvider"])
    expected = served.estimate(frame, names)  # first, for it says which columns are missing
    columns = feed(served.encoder, frame, getattr(served, "column", ""))
    found = _run(session, columns, names)
    singles = [{name: part[[row]] for name, part in columns.items()} for row in range(min(ALONE, len(frame)))]
    alone = [_run(session, single, names) for single in singles]
    largest = {}
    for name in names:
        task = served.answers[name].task
        batch = _largest(task, found[name], expected[name])
        single = [_largest(task, one[name], expected[name][[row]]) for row, one in enumerate(alone)]
        largest[name] = max([batch, *single])
    return largest


def check(largest: Mapping[str, float], tolerance: float) -> None:
    """Refuses a graph that says something else.

    Raises:
        RunError: a difference is above the tolerance.
    """
    name = max(largest, key=lambda one: largest[one] if np.isfinite(largest[one]) else np.inf)
    if not largest[name] <= tolerance:
        message = (
            f"Target '{name}' comes out of ONNX Runtime {largest[name]:.2g} away from what the run says; at most "
            f"{tolerance:g} was expected, so nothing was written. Leave the target out with --target, or allow more "
            "with --tolerance where that much does no harm."
        )
        raise RunError(message)


def _run(session: Any, columns: Mapping[str, np.ndarray], names: list[str]) -> dict[str, np.ndarray]:
    wanted = {one.name for one in session.get_inputs()}
    rows = {name: values for name, values in columns.items() if name in wanted}
    return dict(zip(names, session.run(names, rows), strict=True))


def _largest(task: Task, found: np.ndarray, expected: np.ndarray) -> float:
    if found.shape != expected.shape:
        return float("inf")
    scale = max(float(getattr(task, "scale", None) or 1.0), 1e-30)
    unit = np.maximum(scale, np.abs(expected)) if task.kind in {"regression", "count", "quantile"} else 1.0
    return float(np.max(np.abs(found - expected) / unit, initial=0.0))
