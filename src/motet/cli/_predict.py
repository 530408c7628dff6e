"""`motet predict`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from motet._errors import RequestError
from motet.cli._output import Common, print_json, print_text
from motet.cli._task_column import is_task_run, predict_tasks
from motet.cli._values import costs, kept


def predict(
    run: Path,
    table: str,
    *,
    output: Annotated[
        Path, Parameter(name=["--output", "-o"], help="File to write: .parquet, .csv, .arrow or .ndjson.")
    ],
    target: Annotated[list[str] | None, Parameter(negative="", help="Predict only this target; repeat it.")] = None,
    intervals: Annotated[bool, Parameter(negative="", help="Add NAME_low and NAME_high for numbers.")] = False,
    probabilities: Annotated[bool, Parameter(negative="", help="Add NAME=CLASS columns for classes.")] = False,
    cost: Annotated[
        list[str] | None,
        Parameter(negative="", help="NAME=FP:FN, what a false yes and a false no cost; repeat it."),
    ] = None,
    keep: Annotated[list[str] | None, Parameter(negative="", help="Copy this column of the table; repeat it.")] = None,
    common: Common = Common(),  # noqa: B008
) -> None:
    """Predict every target for every row of a table, in the table's order.

    Parameters
    ----------
    run
        Folder that motet fit made.
    table
        Table with the feature columns; labels are not needed.
    """
    if output.exists() and Path(table).exists() and output.samefile(table):
        message = f"-o {output} is the table itself; its labels and features would be lost. Name another file."
        raise RequestError(message)
    if is_task_run(run):
        predict_tasks(
            run, table, output, target=target or [], intervals=intervals, probabilities=probabilities,
            costs=costs(cost or []), keep=keep or [], as_json=common.json,
        )  # fmt: skip
        return
    import polars as pl

    from motet.data import read_table, write_table
    from motet.tabular import load

    model = load(run)
    frame = read_table(table)
    parts = [model.predict(frame, tasks=target, intervals=intervals, costs=costs(cost or []))]
    if probabilities:
        for name in parts[0].columns:
            if name in model.classes_:
                found = model.predict_proba(frame, task=name)
                parts.append(found.rename({label: f"{name}={label}" for label in found.columns}))
    beside = kept(frame, keep or [], table, parts[0])
    predictions = pl.concat([*([beside] if beside.width else []), *parts], how="horizontal")
    write_table(predictions, output)
    if common.json:
        print_json({"output": str(output), "rows": predictions.height, "columns": predictions.columns})
    else:
        print_text(f"Wrote {predictions.height:,} rows of {', '.join(predictions.columns)} to {output}")
