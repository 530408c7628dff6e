"""What the run cost: time and row passes by candidate, rows in each part, versions."""

from collections.abc import Sequence
from typing import Any

from motet.report._html import Html, details, paragraph, section, table, tag
from motet.report._read import Run
from motet.report._results import Result, mapping, number
from motet.report._words import count, duration, model_name

_PARTS = ("train", "stop", "choose", "test")


def cost_section(run: Run, results: Sequence[Result]) -> Html:
    """Seconds, CPU seconds and row passes, the statement of equal compute, the rows, and what it ran on."""
    seconds, compute = mapping(run.metrics.get("seconds")), mapping(run.metrics.get("compute"))
    names = [name for name in dict.fromkeys([*seconds, *compute]) if name != "total"]
    rows = [
        [
            model_name(name),
            duration(number(seconds.get(name))),
            duration(_cpu(compute, name)),
            count(_passes(compute, name)),
        ]
        for name in names
    ]
    if number(seconds.get("total")) is not None:
        rows.append(["whole run", duration(number(seconds.get("total"))), "", ""])
    head = ["candidate", "time", "CPU time", "row passes"]
    return section(
        "cost",
        "What it cost",
        "" if run.has_tasks else paragraph(compute_sentence(run.metrics)),
        table(head, rows, numeric=(1, 2, 3)) if rows else "",
        paragraph("A row pass is one row going through training once.", "soft"),
        tag("h3", "Rows"),
        *_rows(run, results),
        tag("h3", "What it ran on"),
        table(["what", "value"], _facts(run)),
    )


def compute_sentence(metrics: dict[str, Any]) -> str:
    """How the compute of the own networks, together, compares with that of the shared network."""
    seconds, compute = mapping(metrics.get("seconds")), mapping(metrics.get("compute"))
    pairs = [
        (number(seconds.get("own_network")), number(seconds.get("shared")), duration, "on the clock"),
        (_cpu(compute, "own_network"), _cpu(compute, "shared"), duration, "of CPU time"),
        (_passes(compute, "own_network"), _passes(compute, "shared"), count, "row passes"),
    ]
    known = [(own, shared, show, what) for own, shared, show, what in pairs if own is not None and shared]
    if not known:
        return "The run does not say what the own networks and the shared network each cost."
    own_words = ", ".join(f"{show(own)} {what}" for own, _, show, what in known)
    shared_words = ", ".join(f"{show(shared)} {what}" for _, shared, show, what in known)
    # Of the measures, CPU time stands for compute best; rows say nothing of the network's width.
    rank = {"of CPU time": 0, "row passes": 1, "on the clock": 2}
    own, shared, _, _ = min(known, key=lambda item: rank[item[3]])
    ratio = own / shared
    if 0.9 <= ratio <= 1.1:
        return f"The own networks together got the compute of the shared one: {own_words}, against {shared_words}."
    less = "less" if ratio < 1 else "more"
    return (
        f"The own networks together got {ratio:.2f} times the compute of the shared one: {own_words}, against "
        f"{shared_words}. Read the gains with that in mind: the own networks had {less}."
    )


def _cpu(compute: dict[str, Any], name: str) -> float | None:
    return number(mapping(compute.get(name)).get("cpu_seconds"))


def _passes(compute: dict[str, Any], name: str) -> float | None:
    return number(mapping(compute.get(name)).get("rows"))


def _rows(run: Run, results: Sequence[Result]) -> list[Html]:
    rows = mapping(run.metrics.get("rows"))
    parts = {part: rows.get(part, run.part("split").get(part)) for part in _PARTS}
    labelled = mapping(rows.get("labelled"))
    body = [["all rows", *(count(parts[part]) for part in _PARTS)]]
    for result in results:
        have = mapping(labelled.get(result.name))
        body.append([f"with a label for {result.name}", *(count(have.get(part)) for part in _PARTS)])
    shown = table(["", *_PARTS], body, numeric=range(1, 5))
    how = run.part("split").get("how")
    lead = [paragraph(f"The split is {how}.")] if how else []
    return [*lead, details(f"Rows in each part, for {len(results)} targets", shown) if len(results) > 12 else shown]


def _size(artefact: dict[str, Any]) -> str | None:
    kept, before = number(artefact.get("bytes")), number(artefact.get("bytes_without_distilling"))
    if kept is None:
        return None
    less = f", {before / 1e6:.2f} MB before it was distilled" if before is not None and before > kept else ""
    return f"{kept / 1e6:.2f} MB{less}"


def _facts(run: Run) -> list[list[str]]:
    about, data = run.about, run.part("data")
    limit = number(about.get("time_limit"))
    facts: list[tuple[str, object]] = [
        ("motet", about.get("motet")),
        ("made", about.get("created")),
        ("seed", about.get("seed")),
        ("time limit", duration(limit) if limit is not None else "none"),
        ("data", data.get("source")),
        ("fingerprint of the data", data.get("fingerprint")),
        ("size of the model", _size(mapping(run.metrics.get("artefact")))),
        *run.part("versions").items(),
        *run.part("machine").items(),
    ]
    return [[name, str(value)] for name, value in facts if value is not None]
