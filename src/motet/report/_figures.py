"""One function a figure: gains with intervals, calibration, learning curves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from motet.report._curves import Series
from motet.report._html import Html, tag
from motet.report._results import Interval, numbers
from motet.report._svg import Axes, Point, clip, drawing, padded, segment, text
from motet.report._words import count, gain, percent


@dataclass(frozen=True)
class Whisker:
    """One row of the figure of gains: percent against the best own model, and the interval."""

    name: str
    gain: float | None
    interval: Interval | None
    class_: str


def gains_figure(rows: Sequence[Whisker], margin: float, title: str) -> Html:
    """Dots with whiskers, one row a task; zero and the guard's margin are drawn.

    Args:
        rows: the tasks, in the order of the table.
        margin: percent by which a shared model may be worse.
        title: what was compared, on which rows.
    """
    far = _farthest(rows, margin)
    ends = [end for row in rows for end in (*(row.interval or ()), row.gain) if end is not None]
    inside = [max(min(end, far), -far) for end in ends]
    name_width = 12 + 6.6 * min(max((len(row.name) for row in rows), default=4), 22)
    axes = Axes(name_width, 38, 330, 22.0 * len(rows) + 8, padded([*inside, -margin * 1.4, margin, 0.0]), (0, 1))
    parts = [text(4, 14, title, class_="h"), *axes.columns("gain, % (right is better)")]
    bottom = axes.top + axes.height
    parts.append(segment(axes.px(0), axes.top, axes.px(0), bottom, "zero"))
    if margin > 0:
        parts.append(segment(axes.px(-margin), axes.top, axes.px(-margin), bottom, "margin"))
        parts.append(text(axes.px(-margin) - 3, axes.top - 3, "margin", anchor="end"))
    for index, row in enumerate(rows):
        parts.append(_whisker(axes, row, axes.top + 15 + 22 * index, far))
    return drawing(axes.left + axes.width + 12, bottom + 40, title, parts)


def _farthest(rows: Sequence[Whisker], margin: float) -> float:
    """The gain beyond which a row is an arrow with its number: one outlier would flatten all the others."""
    sizes = sorted(abs(row.gain) for row in rows if row.gain is not None)
    typical = sizes[len(sizes) * 3 // 4] if sizes else 0.0
    return max(4 * typical, 4 * margin, 1.0)


def _whisker(axes: Axes, row: Whisker, at: float, far: float) -> Html:
    name = text(4, at + 4, clip(row.name, 22), class_="name")
    note = tag("title", f"{row.name}: {gain(row.gain, row.interval)}")
    if row.gain is None:
        return tag("g", note, name, text(axes.px(0) + 6, at + 4, "not compared"), class_=row.class_)
    if abs(row.gain) > far:
        edge, sign = (axes.px(axes.x[1]), "▸") if row.gain > 0 else (axes.px(axes.x[0]), "◂")
        words = f"{percent(row.gain)} {sign}" if row.gain > 0 else f"{sign} {percent(row.gain)}"
        anchor = "end" if row.gain > 0 else "start"
        return tag("g", note, name, text(edge, at + 4, words, anchor=anchor), class_=row.class_)
    low, high = row.interval or (row.gain, row.gain)
    left, right = (axes.px(max(min(end, far), -far)) for end in (low, high))
    dot = tag("circle", cx=f"{axes.px(row.gain):.1f}", cy=f"{at:.1f}", r=4.5, class_="dot")
    return tag("g", note, name, segment(left, at, right, at, "stroke"), dot, class_=row.class_)


def calibration_figure(curve: Mapping[str, object], name: str) -> Html | None:
    """Predicted against observed probability, one dot a bin, bars for the number of rows; None without a curve."""
    trio = zip(
        numbers(curve.get("predicted")), numbers(curve.get("observed")), numbers(curve.get("count")), strict=False
    )
    bins = [(p, o, n) for p, o, n in trio if p is not None and o is not None and n]
    if not bins:
        return None
    limit = min(1.0, 1.08 * max(max(p, o) for p, o, _ in bins)) or 1.0
    axes = Axes(52, 24, 250, 250, (0, limit), (0, limit))
    most = max(n for _, _, n in bins)
    parts = axes.columns("predicted probability") + axes.levels("share of rows where it happened")
    for p, _, n in bins:
        high = 60 * n / most
        parts.append(
            tag("rect", x=f"{axes.px(p) - 4:.1f}", y=f"{274 - high:.1f}", width=8, height=f"{high:.1f}", class_="bar")
        )
    parts.append(segment(axes.px(0), axes.py(0), axes.px(limit), axes.py(limit), "zero"))
    parts.append(axes.line([(p, o) for p, o, _ in bins], "stroke"))
    parts += [axes.dot((p, o), "dot", 4, f"predicted {p:.3f}, observed {o:.3f}, {count(n)} rows") for p, o, n in bins]
    return drawing(314, 314, f"Calibration of {name}", [tag("g", *parts, class_="shared")])


def curves_figure(name: str, curves: Sequence[Series], x_label: str) -> Html:
    """The score on the stop rows over training; the best of each curve is marked, LightGBM's best is a level line."""
    lines = [series for series in curves if not series.is_level]
    xs = [x for series in lines for x, _ in series.points] or [0.0]
    ys = [y for series in curves for _, y in series.points]
    axes = Axes(52, 34, 236, 130, (min(xs), max(max(xs), min(xs) + 1e-9)), padded(_robust(curves) or ys))
    parts = [
        tag("title", name),
        text(4, 13, clip(name, 40), class_="h"),
        *axes.columns(x_label),
        *axes.levels(num_ticks=3),
    ]
    for series in curves:
        shown = [(x, min(max(y, axes.y[0]), axes.y[1])) for x, y in series.points]
        if series.is_level:
            level = series.best[1]
            if axes.y[0] <= level <= axes.y[1]:
                marks: list[Html] = [axes.line([(axes.x[0], level), (axes.x[1], level)], "stroke dash")]
            else:
                marks = []
        else:
            note = f"{series.label}: best {series.best[1]:.4g} at {x_label} {series.best[0]:.4g}"
            marks = [axes.line(shown, "stroke dash" if series.stage == "own_network" else "stroke")]
            marks.append(axes.dot(series.best, "dot", 4, note))
        parts.append(tag("g", *marks, class_=series.stage))
    return drawing(310, 204, f"Learning curves of {name}", parts)


def _robust(curves: Sequence[Series]) -> list[float]:
    """Scores that set the y axis: the first evaluations may be far off and would flatten the rest."""
    kept: list[float] = []
    for series in curves:
        values = [y for _, y in series.points]
        if len(values) < 6:
            kept += values
        else:
            best, tenth = series.best[1], sorted(values, key=lambda y: abs(y - series.best[1]))
            kept += [best, *tenth[: max(1, round(0.9 * len(values)))]]
    return kept


def pair_lines(
    pairs: Sequence[tuple[str, Sequence[Point]]], title: str = "Cosines of the lowest pairs over training"
) -> Html:
    """Cosines over training, a line each for some pairs of tasks or some layers, at most five."""
    xs = [x for _, points in pairs for x, _ in points]
    ys = [y for _, points in pairs for _, y in points]
    axes = Axes(52, 24, 420, 180, (min(xs), max(max(xs), min(xs) + 1e-9)), padded([*ys, 0.0]))
    parts = axes.columns("step") + axes.levels("cosine")
    parts.append(segment(axes.left, axes.py(0), axes.left + axes.width, axes.py(0), "zero"))
    for index, (name, points) in enumerate(pairs):
        marks = [tag("title", name), axes.line(points, "stroke")]
        parts.append(tag("g", *marks, *(axes.dot(point, "dot", 2.5) for point in points[-1:]), class_=f"p{index % 5}"))
    return drawing(500, 244, title, parts)
