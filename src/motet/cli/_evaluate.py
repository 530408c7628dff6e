"""`motet evaluate`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from motet.cli._kept import keep_slices
from motet.cli._output import Common, print_json, print_table
from motet.cli._slices import show_slices
from motet.cli._task_column import open_model


def evaluate(
    run: Path,
    table: str,
    *,
    by: Annotated[
        str | None, Parameter(help="Column of the table: score each of its levels, or bins of a number, apart.")
    ] = None,
    target: Annotated[
        list[str] | None, Parameter(negative="", help="Score only this target, or task of a task column; repeat it.")
    ] = None,
    common: Common = Common(),  # noqa: B008
) -> None:
    """Score a model on a labelled table that it has not seen; rows without a target's label do not count for it.

    Parameters
    ----------
    run
        Folder that motet fit made.
    table
        Table with the feature columns and at least one target's labels.
    """
    model = open_model(run)
    if by is not None:
        found = model.slices(table, by=by, tasks=target, seed=common.seed)
        is_kept = keep_slices(run, table, by, found)
        show_slices(run, table, by, found, as_json=common.json, is_kept=is_kept)
        return
    scores = model.evaluate(table, tasks=target, seed=common.seed)
    if common.json:
        print_json({"run": str(run), "table": table, "tasks": scores})
        return
    rows = []
    for name, found in scores.items():
        others = "  ".join(
            f"{key} {_shown(value)}" for key, value in found["metrics"].items() if key != found["metric"]
        )
        low, high = found["ci95"]
        score = f"{_shown(found['metrics'].get(found['metric']))} [{_shown(low)}, {_shown(high)}]"
        rows.append((name, f"{found['rows']:,}", found["metric"], score, others))
    print_table(["target", "rows", "metric", "score [95%]", "others"], rows)


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
