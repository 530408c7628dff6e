"""`motet fit --task-column`, and what the other commands do with the run that it made."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from motet._errors import RequestError, RunError
from motet.cli._output import print_json, print_table, print_text
from motet.cli._values import kept

if TYPE_CHECKING:
    from motet.tabular import Prepared, TabularModel, TaskColumnModel
    from motet.tabular._thresholds import Costs
    from motet.train import Display

FORM, OLD = "task_column", "task_column.json"


@dataclass(frozen=True)
class TaskFit:
    """What `motet fit --task-column` was asked for.

    Args:
        table: path of the table.
        target: the one target.
        task_column: names each row's task.
        out: folder of the run.
        resume: go on with an unfinished run.
        seed: of everything random.
        as_json: print one document.
    """

    table: str
    target: Sequence[str]
    task_column: str
    out: Path
    resume: bool
    seed: int
    as_json: bool

    def check(self, refused: Mapping[str, object]) -> None:
        """Refuses options that do not go with a task column, and several targets.

        Raises:
            RequestError: one of these was given.
        """
        for option, value in refused.items():
            if value not in (None, False):
                message = f"{option} was given with --task-column, which does not read it. Leave one of the two out."
                raise RequestError(message)
        if len(self.target) != 1:
            message = f"{len(self.target)} targets were given with --task-column; one was expected. "
            raise RequestError(message + "Fit one after another.")


def fit_tasks(
    asked: TaskFit, model: "TaskColumnModel", display: "Display", on_prepared: Callable[["Prepared"], None]
) -> None:
    """Fits one target of rows that each belong to one task, and says what came out."""
    from motet.report import write_report

    model.fit(asked.table, out=asked.out, resume=asked.resume, display=display, on_prepared=on_prepared)
    try:
        report = write_report(asked.out)
    except RunError as error:
        message = (
            f"{error} The model is whole and its run complete; only the report is missing: motet report {asked.out}"
        )
        raise RunError(message) from error
    if asked.as_json:
        readings = [vars(reading) for reading in model.readings_]
        print_json({"run": str(asked.out), "report": str(report), "metrics": model.metrics_, "readings": readings,
                    "notes": model.notes_})  # fmt: skip
        return
    _show(model)
    for note in model.notes_:
        print_text(f"Note: {note}")
    print_text(f"Report: {report}")


def is_task_run(run: Path) -> bool:
    """Whether `motet fit --task-column` made this run; what is wrong with a damaged one is for loading to say."""
    if (run / OLD).is_file():
        return True
    try:
        document = json.loads((run / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and document.get("form") == FORM


def open_model(run: Path) -> "TabularModel | TaskColumnModel":
    """The model of a run of either form."""
    from motet.tabular import TaskColumnModel, load

    return TaskColumnModel.load(run) if is_task_run(run) else load(run)


def predict_tasks(
    run: Path, table: str, output: Path, *, target: Sequence[str], intervals: bool, probabilities: bool,
    costs: "Costs", keep: Sequence[str], as_json: bool,
) -> None:  # fmt: skip
    """Predicts the target for every row, and says in a column who answers it.

    Raises:
        RequestError: another target, or a column to keep that the table lacks.
    """
    import polars as pl

    from motet.data import read_table, write_table
    from motet.tabular import TaskColumnModel

    model, frame = TaskColumnModel.load(run), read_table(table)
    model.served_.names(target)
    parts = [model.predict(frame, intervals=intervals, sources=True, costs=costs)]
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


def _show(model: "TaskColumnModel") -> None:
    metrics = model.metrics_
    overall: dict[str, Any] = metrics["overall"]
    rows = [
        (name, found["test"], found["choose_gain_percent"], "for all tasks" if name == metrics["served_by"] else "")
        for name, found in metrics["learners"].items()
    ]
    rows.append(("each task's own LightGBM", overall["single_task"], None, ""))
    rows.append(("what is served", overall["motet"], None, ""))
    print_table(["learner", f"test {metrics['metric']}", "gain over pooled [%]", ""], rows)
    for reading in model.outliers():
        gain = (
            ""
            if reading.gain_percent is None
            else f"; with the others its loss would rise by {reading.gain_percent:g}%"
        )
        print_text(f"'{reading.task}' stands apart ({reading.rows} rows{gain}).")
