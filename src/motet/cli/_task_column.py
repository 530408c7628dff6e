"""`motet fit --task-column`, and `motet predict` with what it made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from motet._errors import RequestError
from motet.cli._output import print_json, print_table, print_text
from motet.cli._values import kept

if TYPE_CHECKING:
    from motet.tabular import TaskReading

MARK = "task_column.json"


@dataclass(frozen=True)
class TaskFit:
    """What `motet fit --task-column` was asked for.

    Args:
        table: path of the table.
        target: the one target.
        task_column: names each row's task.
        out: folder of the run.
        seed: of everything random.
        as_json: print one document.
    """

    table: str
    target: Sequence[str]
    task_column: str
    out: Path
    seed: int
    as_json: bool


def fit_tasks(
    asked: TaskFit, refused: Mapping[str, object], *, time_limit: float | None, split: str | None,
    split_column: str | None, roles: Mapping[str, str], max_epochs: int | None,
) -> None:  # fmt: skip
    """Fits one target of rows that each belong to one task.

    Args:
        asked: table, target, task column and folder.
        refused: options that do not go with a task column, None or False where they were not given.
        time_limit: seconds.
        split: how rows are held out.
        split_column: what the split reads.
        roles: of columns.
        max_epochs: of the networks.

    Raises:
        RequestError: several targets, an option that does not apply, or a folder that is not empty.
    """
    for option, value in refused.items():
        if value not in (None, False):
            message = f"{option} was given with --task-column, which does not read it. Leave one of the two out."
            raise RequestError(message)
    if len(asked.target) != 1:
        message = f"{len(asked.target)} targets were given with --task-column; one was expected. Fit one after another."
        raise RequestError(message)
    if asked.out.exists() and (not asked.out.is_dir() or any(asked.out.iterdir())):
        message = f"The folder '{asked.out}' for the run is not empty. Name a new folder with --out."
        raise RequestError(message)
    from motet.tabular import TaskColumnModel

    model = TaskColumnModel(
        asked.target[0], task_column=asked.task_column, time_limit=time_limit, seed=asked.seed,
        split=None if split == "random" else split, split_column=split_column, roles=roles, max_epochs=max_epochs,
    ).fit(asked.table)  # fmt: skip
    model.save(asked.out)
    if asked.as_json:
        readings = [vars(reading) for reading in model.readings_]
        print_json({"run": str(asked.out), "metrics": model.metrics_, "readings": readings, "notes": model.notes_})
        return
    _show(model.metrics_, model.outliers())
    for note in model.notes_:
        print_text(f"Note: {note}")
    print_text(f"Run: {asked.out}")


def is_task_run(run: Path) -> bool:
    """Whether `motet fit --task-column` made this run."""
    return (run / MARK).is_file()


def predict_tasks(
    run: Path, table: str, output: Path, *, probabilities: bool, keep: Sequence[str], refused: Mapping[str, object],
    as_json: bool,
) -> None:  # fmt: skip
    """Predicts the target for every row.

    Raises:
        RequestError: an option that does not apply, or a column to keep that the table lacks.
    """
    import polars as pl

    from motet.data import read_table, write_table
    from motet.tabular import TaskColumnModel

    for option, value in refused.items():
        if value:
            message = f"{option} was given for '{run}', a run with a task column, which has none. Leave it out."
            raise RequestError(message)
    model, frame = TaskColumnModel.load(run), read_table(table)
    parts = [model.predict(frame)]
    beside = kept(frame, keep, table, parts[0])
    if probabilities and getattr(model.task_, "classes", None) is not None:
        found = model.predict_proba(frame)
        parts.append(found.rename({label: f"{model.task_.name}={label}" for label in found.columns}))
    predictions = pl.concat([*([beside] if beside.width else []), *parts], how="horizontal")
    write_table(predictions, output)
    if as_json:
        print_json({"output": str(output), "rows": predictions.height, "columns": predictions.columns,
                    "notes": model.notes_})  # fmt: skip
        return
    for note in model.notes_:
        print_text(f"Note: {note}")
    print_text(f"Wrote {predictions.height:,} rows of {', '.join(predictions.columns)} to {output}")


def _show(metrics: Mapping[str, Any], outliers: Sequence["TaskReading"]) -> None:
    rows = [
        (name, found["test"], found["choose_gain_percent"], "serves" if name == metrics["served_by"] else "")
        for name, found in metrics["learners"].items()
    ]
    print_table(["learner", f"test {metrics['metric']}", "gain over pooled [%]", ""], rows)
    for reading in outliers:
        gain = (
            ""
            if reading.gain_percent is None
            else f"; with the others its loss would rise by {reading.gain_percent:g}%"
        )
        print_text(f"'{reading.task}' stands apart ({reading.rows} rows{gain}).")
