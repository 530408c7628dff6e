"""Writes report.html and card.md into a run directory."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from motet.report._background import conflict_section, curves_section, notes_section, schema_section
from motet.report._by_task import each_task_section, judge_tasks, overall_result, readings_section, together_section
from motet.report._card import model_card
from motet.report._cost import cost_section
from motet.report._effects_section import effects_section
from motet.report._html import Html, tag
from motet.report._layers_section import layers_section
from motet.report._outcome import results_section, tasks_section, verdict_section
from motet.report._read import Run, read_run
from motet.report._results import Result, read_results
from motet.report._slices_section import slices_section
from motet.report._style import page
from motet.report._trials_section import trials_section
from motet.report._verdict import Verdict, judge
from motet.train import replacing

_CONTENTS = {
    "together": "All tasks",
    "targets": "Targets",
    "each": "Each target",
    "apart": "Apart",
    "effects": "Effects",
    "slices": "Slices",
    "curves": "Learning curves",
    "conflicts": "Conflicts",
    "layers": "Layers",
    "schema": "Schema",
    "trials": "Trials",
    "cost": "Cost",
    "notes": "Notes",
}
_FOR_TASKS = {"targets": "Tasks", "each": "Each task"}


def write_report(run: str | Path) -> Path:
    """Writes `report.html` and `card.md` from the files of a run directory; each appears whole or not at all.

    Args:
        run: the run directory.

    Returns:
        the path of `report.html`.

    Raises:
        RequestError: `run` is not a run directory.
        RunError: the run is unfinished or damaged, or a file cannot be written.
    """
    path = Path(run)
    read = read_run(path)
    results = read_results(read.metrics)
    if read.has_tasks:
        overall = overall_result(read)
        verdict = judge_tasks(read, overall, results)
        card, sections = model_card(read, [overall], verdict), _task_sections(read, overall, results)
    else:
        verdict = judge(read, results)
        card, sections = model_card(read, results, verdict), _sections(read, results)
    _replace(path / "card.md", card)
    _replace(path / "report.html", _html(read, results, verdict, sections))
    return path / "report.html"


def _sections(run: Run, results: Sequence[Result]) -> dict[str, Html | None]:
    return {
        "targets": results_section(run, results),
        "each": tasks_section(results),
        "effects": effects_section(run),
        "slices": slices_section(run),
        "curves": curves_section(run, results),
        "conflicts": conflict_section(run, results),
        "layers": layers_section(run, results),
        "schema": schema_section(run),
        "trials": trials_section(run),
        "cost": cost_section(run, results),
        "notes": notes_section(run),
    }


def _task_sections(run: Run, overall: Result, results: Sequence[Result]) -> dict[str, Html | None]:
    """With a task column the tasks are many and their gradients one target's: curves are of all tasks together."""
    return {
        "together": together_section(run, overall),
        "targets": each_task_section(run, results),
        "each": tasks_section(results, "Each task, all models"),
        "apart": readings_section(run),
        "effects": effects_section(run),
        "slices": slices_section(run),
        "curves": curves_section(run, [overall]),
        "schema": schema_section(run),
        "cost": cost_section(run, []),
        "notes": notes_section(run),
    }


def _html(run: Run, results: Sequence[Result], verdict: Verdict, sections: Mapping[str, Html | None]) -> Html:
    titles = _CONTENTS | (_FOR_TASKS if run.has_tasks else {})
    shown = {anchor: part for anchor, part in sections.items() if part is not None}
    return page(
        f"motet: {run.name}",
        verdict_section(run, results, verdict),
        tag("nav", *(tag("a", titles[anchor], href=f"#{anchor}") for anchor in shown)),
        *shown.values(),
    )


def _replace(path: Path, text: str) -> None:
    # JSON may hold half a surrogate pair, which UTF-8 cannot: it becomes a question mark.
    with replacing(path) as temporary:
        temporary.write_bytes(text.encode("utf-8", errors="replace"))
