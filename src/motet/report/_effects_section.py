"""What each feature is worth to each target, as `motet effects` left it in the run."""

import itertools
from collections.abc import Sequence
from typing import Any

from motet.report._html import Html, details, paragraph, section, table, tag
from motet.report._read import Run, objects
from motet.report._results import Interval, number
from motet.report._svg import Axes, clip, drawing, padded, segment, text
from motet.report._words import decimal, decimals, plain

_SHOWN = 12  # features of a target in its figure; the table has all
_OPEN = 4  # targets whose figure is drawn open
_DOUBTS = {
    "not supported": "may not be believed: it made no provable difference which quarter of the features was lost.",
    "contradicted": "may not be believed: losing the least important quarter of the features hurt more.",
    "too few rows": "was not checked: under 100 labelled rows.",
    "too few features": "was not checked: there is one feature.",
    "supported": "is supported: trained again without them, the most important quarter of the features is missed more.",
}


def effects_section(run: Run) -> Html | None:
    """One figure a target with a whisker for each feature; nothing where no effects were computed."""
    rows = objects(run.effects.get("effects"))
    if not rows:
        return None
    lead = (
        f"How much worse each target's metric gets when a feature's values are dealt to other rows of "
        f"`{run.effects.get('table') or 'a table'}`: right of zero, the model needs the feature. Whiskers are 95 % "
        "intervals. It is a statement about the model, not about the world."
    )
    verdicts = {str(row.get("target")): str(row.get("verdict")) for row in objects(run.effects.get("checks"))}
    moved = objects(run.effects.get("attributions"))
    moved_verdicts = {
        str(row.get("target")): str(row.get("verdict")) for row in objects(run.effects.get("attribution_checks"))
    }
    parts = []
    for place, (target, found) in enumerate(itertools.groupby(rows, key=lambda row: str(row.get("target")))):
        shap = _attributions([row for row in moved if row.get("target") == target], moved_verdicts.get(target))
        parts.append(_part(target, list(found), verdicts.get(target), shap, is_open=place < _OPEN))
    return section("effects", "What the features are worth", paragraph(lead), *parts)


def _part(
    target: str, rows: Sequence[dict[str, Any]], verdict: str | None, shap: Sequence[Html], *, is_open: bool
) -> Html:
    metric = str(rows[0].get("metric") or "metric")
    said = [paragraph(f"The ranking {_DOUBTS.get(verdict, f'was checked: {verdict}.')}")] if verdict else []
    if verdict is None:
        said = [paragraph("Whether the ranking may be believed was not checked: add --check to motet effects.", "soft")]
    figure = tag("figure", effects_figure(target, metric, rows[:_SHOWN]))
    return details(target, *said, figure, _table(metric, rows), *shap, is_open=is_open)


def _attributions(rows: Sequence[dict[str, Any]], verdict: str | None) -> list[Html]:
    """How far each feature moves the answers, as a table; nothing where that was not asked for."""
    if not rows:
        return []
    places = decimals([number(row.get("mean_shap")) for row in rows])
    body = [
        [str(row.get("feature")), decimal(number(row.get("mean_shap")), places), decimal(_percent(row.get("share")), 1)]
        for row in rows
    ]
    unit = "the trees' score, exact" if rows[0].get("unit") == "score" else "the estimate, sampled"
    said = [paragraph(f"This ranking {_DOUBTS.get(verdict, f'was checked: {verdict}.')}")] if verdict else []
    lead = f"How far each feature moves the answers: mean absolute Shapley values, in the unit of {unit}"
    return [details(lead, *said, table(["feature", "mean |SHAP|", "share, %"], body, numeric=(1, 2)))]


def effects_figure(target: str, metric: str, rows: Sequence[dict[str, Any]]) -> Html:
    """Dots with whiskers, one row a feature, the largest first."""
    drops = [(str(row.get("feature")), number(row.get("drop")), _ends(row)) for row in rows]
    ends = [end for _, drop, span in drops for end in (*(span or ()), drop) if end is not None]
    width = 12 + 6.6 * min(max(len(name) for name, _, _ in drops), 30)
    axes = Axes(width, 30, 330, 20.0 * len(drops) + 8, padded([*ends, 0.0]), (0, 1))
    bottom = axes.top + axes.height
    parts = [text(4, 14, clip(target, 40), class_="h"), *axes.columns(f"{metric} gets worse by")]
    parts.append(segment(axes.px(0), axes.top, axes.px(0), bottom, "zero"))
    for place, (name, drop, span) in enumerate(drops):
        parts.append(_whisker(axes, name, drop, span, axes.top + 14 + 20 * place))
    return drawing(axes.left + axes.width + 12, bottom + 40, f"Feature effects on {target}", parts)


def _whisker(axes: Axes, name: str, drop: float | None, span: Interval | None, at: float) -> Html:
    shown = text(4, at + 4, clip(name, 30), class_="name")
    if drop is None:
        return tag("g", tag("title", name), shown, text(axes.px(0) + 6, at + 4, "not defined"))
    low, high = span or (drop, drop)
    note = tag("title", f"{name}: {plain(drop)}" + (f" ({plain(low)} to {plain(high)})" if span else ""))
    dot = tag("circle", cx=f"{axes.px(drop):.1f}", cy=f"{at:.1f}", r=4, class_="dot")
    kind = "shared" if span is None or low > 0 else "own"
    return tag("g", note, shown, segment(axes.px(low), at, axes.px(high), at, "stroke"), dot, class_=kind)


def _table(metric: str, rows: Sequence[dict[str, Any]]) -> Html:
    places = decimals([number(row.get("drop")) for row in rows])
    body = [
        [
            str(row.get("feature")), decimal(number(row.get("drop")), places), _shown(_ends(row), places),
            decimal(_percent(row.get("share")), 1),
        ]
        for row in rows
    ]  # fmt: skip
    head = ["feature", f"{metric} worse by", "95 % interval", "share, %"]
    return details(f"All {len(rows)} features as a table", table(head, body, numeric=(1, 2, 3)))


def _ends(row: dict[str, Any]) -> Interval | None:
    low, high = number(row.get("low")), number(row.get("high"))
    return None if low is None or high is None else (low, high)


def _shown(span: Interval | None, places: int) -> str:
    return f"{decimal(span[0], places)} to {decimal(span[1], places)}" if span else "–"


def _percent(value: object) -> float | None:
    share = number(value)
    return None if share is None else 100 * share
