"""Writes report.html and card.md into a run directory."""

from collections.abc import Sequence
from pathlib import Path

from motet.report._background import conflict_section, curves_section, notes_section, schema_section
from motet.report._card import model_card
from motet.report._cost import cost_section
from motet.report._html import Html, tag
from motet.report._layers_section import layers_section
from motet.report._outcome import results_section, tasks_section, verdict_section
from motet.report._read import Run, read_run
from motet.report._results import Result, read_results
from motet.report._style import page
from motet.report._verdict import Verdict, judge
from motet.train import replacing

_CONTENTS = {
    "targets": "Targets",
    "each": "Each target",
    "curves": "Learning curves",
    "conflicts": "Conflicts",
    "layers": "Layers",
    "schema": "Schema",
    "cost": "Cost",
    "notes": "Notes",
}


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
    verdict = judge(read, results)
    _replace(path / "card.md", model_card(read, results, verdict))
    _replace(path / "report.html", _html(read, results, verdict))
    return path / "report.html"


def _html(run: Run, results: Sequence[Result], verdict: Verdict) -> Html:
    return page(
        f"motet: {run.name}",
        verdict_section(run, results, verdict),
        tag("nav", *(tag("a", title, href=f"#{anchor}") for anchor, title in _CONTENTS.items())),
        results_section(run, results),
        tasks_section(results),
        curves_section(run, results),
        conflict_section(run, results),
        layers_section(run, results),
        schema_section(run),
        cost_section(run, results),
        notes_section(run),
    )


def _replace(path: Path, text: str) -> None:
    # JSON may hold half a surrogate pair, which UTF-8 cannot: it becomes a question mark.
    with replacing(path) as temporary:
        temporary.write_bytes(text.encode("utf-8", errors="replace"))
