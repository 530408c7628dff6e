"""How good the model is on each part of a table, as `motet evaluate --by` left it in the run."""

import itertools
from collections.abc import Sequence
from typing import Any

from motet.report._html import Html, details, paragraph, section, table, tag
from motet.report._read import Run, objects
from motet.report._results import mapping, number
from motet.report._svg import Axes, clip, drawing, padded, segment, text
from motet.report._words import count, decimal, decimals, plain

_SHOWN = 40  # slices of a target in its figure
_OPEN = 4  # targets whose figure is drawn open


def slices_section(run: Run) -> Html | None:
    """One figure for each column and target with a whisker for each slice; nothing where there are no slices."""
    parts = []
    for by, found in mapping(run.slices.get("by")).items():
        rows = objects(mapping(found).get("slices"))
        source = mapping(found).get("table") or "a table"
        for target, group in itertools.groupby(rows, key=lambda row: str(row.get("target"))):
            parts.append(_part(by, target, str(source), list(group), is_open=len(parts) < _OPEN))
    if not parts:
        return None
    lead = (
        "Each target's score on parts of a labelled table. Some part always is the worst; it is called proven where "
        "that is more than luck explains."
    )
    return section("slices", "Where it is strong and weak", paragraph(lead), *parts)


def _part(by: str, target: str, source: str, rows: Sequence[dict[str, Any]], *, is_open: bool) -> Html:
    said = [paragraph(_worst(by, row)) for row in rows if row.get("worst") is True]
    few = [] if len(rows) <= _SHOWN else [paragraph(f"The figure shows {_SHOWN} of {len(rows)} slices.", "soft")]
    metric = str(rows[0].get("metric") or "metric")
    figure = tag("figure", slices_figure(f"{target} by {by}", metric, rows[:_SHOWN]))
    body = details(f"All {len(rows)} slices as a table", _table(by, metric, rows))
    return details(f"{target} by {by}, rows of {source}", *said, *few, figure, body, is_open=is_open)


def _worst(by: str, row: dict[str, Any]) -> str:
    gap = number(row.get("worse_by"))
    luck = "which is more than luck explains" if row.get("proven") is True else "which may be luck"
    worse = f", {plain(gap)} worse than on the other rows" if gap is not None else ""
    return f"It is worst where `{by}` is `{row.get('slice')}`{worse}, {luck}."


def slices_figure(title: str, metric: str, rows: Sequence[dict[str, Any]]) -> Html:
    """Dots with whiskers on the metric's own axis, one row a slice."""
    names = [str(row.get("slice")) for row in rows]
    ends = [end for row in rows for key in ("score", "low", "high") if (end := number(row.get(key))) is not None]
    width = 12 + 6.6 * min(max(map(len, names)), 30)
    axes = Axes(width, 30, 330, 20.0 * len(rows) + 8, padded(ends or [0.0]), (0, 1))
    parts = [text(4, 14, clip(title, 50), class_="h"), *axes.columns(metric)]
    for place, row in enumerate(rows):
        parts.append(_whisker(axes, row, axes.top + 14 + 20 * place))
    return drawing(axes.left + axes.width + 12, axes.top + axes.height + 40, f"Scores of {title}", parts)


def _whisker(axes: Axes, row: dict[str, Any], at: float) -> Html:
    name, score = str(row.get("slice")), number(row.get("score"))
    shown = text(4, at + 4, clip(name, 30), class_="name")
    if score is None:
        return tag("g", tag("title", name), shown, text(axes.left + 6, at + 4, "not defined"))
    low, high = number(row.get("low")), number(row.get("high"))
    note = tag("title", f"{name}: {plain(score)}, {count(row.get('rows'))} rows")
    line = [] if low is None or high is None else [segment(axes.px(low), at, axes.px(high), at, "stroke")]
    dot = tag("circle", cx=f"{axes.px(score):.1f}", cy=f"{at:.1f}", r=4, class_="dot")
    return tag("g", note, shown, *line, dot, class_="worse" if row.get("proven") is True else "shared")


def _table(by: str, metric: str, rows: Sequence[dict[str, Any]]) -> Html:
    places = decimals([number(row.get("score")) for row in rows])
    body = [
        [
            str(row.get("slice")), count(row.get("rows")),
            *(decimal(number(row.get(key)), places) for key in ("score", "low", "high", "worse_by")),
        ]
        for row in rows
    ]  # fmt: skip
    head = [by, "rows", metric, "from", "to (95 %)", "worse than the others by"]
    return table(head, body, numeric=range(1, 6))
