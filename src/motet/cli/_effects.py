"""`motet effects`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from motet.cli._kept import keep_effects
from motet.cli._output import Common, print_json, print_table, print_text
from motet.cli._task_column import open_model

if TYPE_CHECKING:
    import polars as pl

SHOWN = 10  # features a target; --json has all
SHAP_ROWS = 500
DOUBT = "The ranking of {target} may not be believed: "
VERDICTS = {
    "supported": "The ranking of {target} is supported: ",
    "not supported": DOUBT,
    "contradicted": DOUBT,
    "too few rows": "The ranking of {target} was not checked: under 100 labelled rows.",
    "too few features": "The ranking of {target} was not checked: there is one feature.",
}


def effects(
    run: Path,
    table: str,
    *,
    target: Annotated[
        list[str] | None, Parameter(negative="", help="Explain only this target, or task of a task column; repeat it.")
    ] = None,
    repeats: Annotated[int, Parameter(help="Times that each feature is shuffled.")] = 5,
    max_rows: Annotated[int, Parameter(help="Rows to shuffle, drawn from a longer table.")] = 10_000,
    check: Annotated[
        bool, Parameter(negative="", help="Train again without the best and the worst features: is the ranking right?")
    ] = False,
    shap: Annotated[
        bool, Parameter(negative="", help="Also how far each feature moves the answers: mean absolute Shapley values.")
    ] = False,
    common: Common = Common(),  # noqa: B008
) -> None:
    """What each feature is worth to each target: how much worse its metric gets when the feature is shuffled.

    Parameters
    ----------
    run
        Folder that motet fit made.
    table
        Labelled table that the model has not seen.
    """
    from motet.data import read_table

    model, frame = open_model(run), read_table(table)
    found = model.effects(frame, tasks=target, repeats=repeats, max_rows=max_rows, seed=common.seed)
    checks = model.check_effects(frame, found, seed=common.seed) if check else None
    moved = (
        model.attributions(frame, tasks=target, max_rows=min(max_rows, SHAP_ROWS), seed=common.seed) if shap else None
    )
    moved_checks = model.check_effects(frame, moved, seed=common.seed) if check and moved is not None else None
    is_kept = keep_effects(run, table, found, checks, moved, moved_checks)
    if common.json:
        parts = {"effects": found, "checks": checks, "attributions": moved, "attribution_checks": moved_checks}
        shown = {name: part.to_dicts() for name, part in parts.items() if part is not None}
        print_json({"run": str(run), "table": table, **shown})
        return
    _show(found)
    if moved is not None:
        _show_moved(moved)
    for row in moved_checks.iter_rows(named=True) if moved_checks is not None else ():
        print_text(f"By Shapley values: {_verdict(row)}")
    for row in checks.iter_rows(named=True) if checks is not None else ():
        print_text(_verdict(row))
    if is_kept:
        print_text(f"Kept in the run; its report draws them from now on: motet report {run}")


def _show(found: "pl.DataFrame") -> None:
    rows = []
    for (target,), part in found.group_by("target", maintain_order=True):
        for row in part.head(SHOWN).iter_rows(named=True):
            drop = f"{_shown(row['drop'])} [{_shown(row['low'])}, {_shown(row['high'])}]"
            share = "-" if row["share"] is None else f"{100 * row['share']:.1f}"
            rows.append((target, row["feature"], row["metric"], drop, share))
        if part.height > SHOWN:
            rows.append((target, f"and {part.height - SHOWN} others (--json)", "", "", ""))
    print_table(["target", "feature", "metric", "worse without it by [95%]", "share [%]"], rows)


def _show_moved(found: "pl.DataFrame") -> None:
    rows = [
        (row["target"], row["feature"], _shown(row["mean_shap"]), f"{100 * (row['share'] or 0.0):.1f}", row["unit"])
        for _, part in found.group_by("target", maintain_order=True)
        for row in part.head(SHOWN).iter_rows(named=True)
    ]
    print_table(["target", "feature", "mean |SHAP|", "share [%]", "of the"], rows)


def _verdict(row: dict[str, object]) -> str:
    text = VERDICTS[str(row["verdict"])].format(target=row["target"])
    if row["difference"] is None:
        return text if not text.endswith(": ") else f"{text}{row['metric']} is not defined on its rows."
    return (
        f"{text}trained again, {row['metric']} is {_shown(row['all'])} with all features, "
        f"{_shown(row['without_most'])} without the most and {_shown(row['without_least'])} without the least "
        f"important quarter (difference {_shown(row['difference'])} [{_shown(row['low'])}, {_shown(row['high'])}])."
    )


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "-"
