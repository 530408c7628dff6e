"""What was tried on the way to the candidates, and what each trial cost."""

from typing import Any

from motet.report._html import Html, paragraph, section, table
from motet.report._read import Run, objects
from motet.report._results import number
from motet.report._words import decimal, decimals, duration, model_name


def trials_section(run: Run) -> Html | None:
    """One row a trial with its score on the stop rows; nothing where nothing was tried."""
    trials = objects(run.metrics.get("trials"))
    if not trials:
        return None
    places = decimals([number(trial.get("score")) for trial in trials])
    rows = [_row(trial, places) for trial in trials]
    lead = (
        "Short trainings that decided what the candidates are, judged by the stop rows, on which no candidate is "
        "compared with another. What was kept went on."
    )
    head = ["candidate", "target", "tried", "measure", "score", "time", ""]
    return section("trials", "What was tried", paragraph(lead), table(head, rows, numeric=(4, 5)))


def _row(trial: dict[str, Any], places: int) -> list[str]:
    part = number(trial.get("part_of_epochs"))
    name = str(trial.get("name"))
    return [
        model_name(str(trial.get("candidate"))),
        str(trial.get("task") or "all"),
        name if part is None else f"{name}, {100 * part:.0f} % of its epochs",
        str(trial.get("metric") or "its own"),
        decimal(number(trial.get("score")), places),
        duration(number(trial.get("seconds"))),
        "kept" if trial.get("kept") is True else "",
    ]
