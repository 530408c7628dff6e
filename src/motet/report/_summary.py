"""The table of targets for a terminal."""

from typing import Any

from motet.report._results import Result, read_results
from motet.report._verdict import is_uncompared, is_worse
from motet.report._words import gain, model_name, score


def summary_table(metrics: dict[str, Any]) -> list[dict[str, str]]:
    """One row for each target, ready to print; the keys are the titles of the columns.

    Args:
        metrics: the document of metrics.json.

    Returns:
        rows with the keys task, kind, metric, constant, own model, motet, gain, served by and note. Names are as
        the run has them: a printer that reads markup has to escape them.

    Raises:
        RunError: a task lacks its kind or metric.
    """
    return [_row(result) for result in read_results(metrics)]


def _row(result: Result) -> dict[str, str]:
    row = {
        "task": result.name,
        "kind": result.kind,
        "metric": result.metric,
        "constant": score(result.constant, result),
        "own model": score(result.single, result),
        "motet": score(result.motet, result),
        "gain": gain(result.gain, result.interval),
        "served by": model_name(result.served_by),
        "note": _note(result),
    }
    # Terminals and logs that are not UTF-8 take a hyphen, not a minus sign.
    plain = {key: value.replace("−", "-").replace("–", "-") for key, value in row.items() if key != "task"}
    return {"task": result.name} | plain


def _note(result: Result) -> str:
    notes = []
    if result.motet is None:
        notes.append("no score on test rows")
    if result.predictable is False:
        notes.append("not predictable")
    if is_worse(result):
        notes.append("worse than its own model")
    if is_uncompared(result):
        notes.append("not compared")
    if result.guard and result.served_by.startswith("own_") and result.guard.verdict in ("worse", "not proven"):
        notes.append("sharing is worse" if result.guard.verdict == "worse" else "sharing is not proven harmless")
    return ", ".join(notes)
