"""`motet fit`."""

import contextlib
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from motet._errors import RunError
from motet.cli._output import Common, print_json, print_table, print_text
from motet.cli._task_column import TaskFit, fit_tasks
from motet.cli._values import roles, seconds

if TYPE_CHECKING:
    from motet.tabular import Prepared, TabularModel
    from motet.train import Display


def fit(
    table: str,
    *,
    target: Annotated[list[str], Parameter(negative="", help="A column to predict, NAME or NAME:KIND; repeat it.")],
    out: Annotated[Path, Parameter(help="Folder of the run; new or empty.")],
    task_column: Annotated[
        str | None, Parameter(help="Names the task that each row belongs to; there is then one target.")
    ] = None,
    time_limit: Annotated[str | None, Parameter(help="Such as 90s, 5m or 1h30m; none if not given.")] = None,
    split: Annotated[
        Literal["random", "group", "time", "given"] | None, Parameter(help="How rows are held out.")
    ] = None,
    split_column: Annotated[str | None, Parameter(help="The column that --split group, time or given reads.")] = None,
    role: Annotated[
        list[str] | None, Parameter(negative="", help="NAME=ROLE: overrides what the schema decided.")
    ] = None,
    ignore: Annotated[list[str] | None, Parameter(negative="", help="A column to leave out; repeat it.")] = None,
    balance: Annotated[
        str | None,
        Parameter(help="Balancing method of the shared network, such as f-mtl+cagrad; see motet methods."),
    ] = None,
    sharing: Annotated[str | None, Parameter(help="Architecture of the shared network; see motet methods.")] = None,
    margin: Annotated[float | None, Parameter(help="Percent that sharing may cost a target.")] = None,
    deploy: Annotated[
        Literal["small", "best"] | None,
        Parameter(help="One model a target, taught to one small network where that is not worse; or proven blends."),
    ] = None,
    max_epochs: Annotated[int | None, Parameter(help="Of every network.")] = None,
    resume: Annotated[bool, Parameter(negative="", help="Go on with an unfinished run in --out.")] = False,
    common: Common = Common(),  # noqa: B008
) -> None:
    """Fit one table with several targets, and prove for each that sharing did not hurt it.

    Labels may be missing anywhere. The kinds of target are regression, binary, multiclass, multilabel, ordinal, count
    and quantile; without one, the column decides.

    Parameters
    ----------
    table
        Parquet, CSV, Arrow or NDJSON file.
    """
    limit, overrides = seconds(time_limit), roles(role or [], ignore or [])
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)
    if task_column is not None:
        from motet.tabular import TaskColumnModel

        asked = TaskFit(table, target, task_column, out, resume, common.seed, common.json)
        asked.check({"--balance": balance, "--sharing": sharing})
        by_task = TaskColumnModel(
            target[0], task_column=task_column, time_limit=limit, seed=common.seed, roles=overrides,
            split=None if split == "random" else split, split_column=split_column, max_epochs=max_epochs,
            margin=0.5 if margin is None else margin, deploy=deploy or "best",
        )  # fmt: skip
        with contextlib.closing(_display()) as display:
            fit_tasks(asked, by_task, display, _show_schema)
        return
    from motet.tabular import FitSettings, TabularModel

    chosen: dict[str, Any] = {
        "balance": balance, "sharing": sharing, "margin": margin, "max_epochs": max_epochs, "deploy": deploy,
    }  # fmt: skip
    settings = FitSettings(**{name: value for name, value in chosen.items() if value is not None})
    model = TabularModel(
        target, time_limit=limit, seed=common.seed, split=split, split_column=split_column, roles=overrides,
        settings=settings,
    )  # fmt: skip
    with contextlib.closing(_display()) as display:  # a live table hides the cursor until it is closed
        model.fit(table, out=out, resume=resume, display=display, on_prepared=_show_schema)
    _tell(model, out, json=common.json)


def _tell(model: "TabularModel", out: Path, *, json: bool) -> None:
    """Writes the report and says what came out."""
    from motet.report import write_report

    try:
        report = write_report(out)
    except RunError as error:
        message = f"{error} The model is whole and its run complete; only the report is missing: motet report {out}"
        raise RunError(message) from error
    if json:
        print_json({"run": str(out), "report": str(report), "metrics": model.metrics_, "notes": model.run_["notes"]})
        return
    show_targets(model.metrics_)
    for note in model.run_["notes"]:
        print_text(f"Note: {note}")
    print_text(f"Report: {report}")


def show_targets(metrics: Mapping[str, Any]) -> None:
    """Prints the table of targets."""
    from motet.report import summary_table

    rows = summary_table(dict(metrics))
    columns = list(rows[0]) if rows else []
    print_table(columns, [list(row.values()) for row in rows])


def _display() -> "Display":
    from motet.train import LiveTable, PlainLines

    return LiveTable() if sys.stderr.isatty() else PlainLines()


def _show_schema(prepared: "Prepared") -> None:
    for line in prepared.schema.lines():
        print(line, file=sys.stderr)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
