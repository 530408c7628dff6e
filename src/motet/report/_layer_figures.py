"""The figures of the layers: norms of every target in every layer, and nuclear norms from layer to layer."""

import itertools
import math
from collections.abc import Sequence

from motet.report._html import Html, tag
from motet.report._layers import LayerStory, mean, share
from motet.report._svg import Axes, clip, drawing, segment, text
from motet.report._words import plain

_ROW = 20.0
_DECADES = 3.0  # norms further below the largest are as pale as this


def norm_map(stories: Sequence[LayerStory], names: Sequence[str], all_stories: Sequence[LayerStory]) -> Html:
    """A cell for each layer and target, the deeper the larger the gradient; a bar for the layer's share of conflict.

    Args:
        stories: the layers shown, a row each.
        names: the targets, a column each.
        all_stories: every layer, of which the shares are parts.
    """
    width = min(max(440 / len(names), 9.0), 58.0)
    left, top = 190.0, 24.0 + (48.0 if width >= 18 else 0.0)
    right = left + len(names) * width
    largest = max((mean(norms) for story in stories for norms in story.norms.values()), default=0.0)
    parts: list[Html] = []
    if width >= 18:
        parts += [_heading(left + (place + 0.5) * width, top - 6, name) for place, name in enumerate(names)]
    parts.append(text(right + 12, top - 6, "share of conflict"))
    for row, story in enumerate(stories):
        y = top + row * _ROW
        parts.append(
            tag(
                "text",
                tag("title", story.name),
                f"{_tail(story.name, 24)} {row + 1}",
                x=left - 6,
                y=f"{y + 14:.1f}",
                text_anchor="end",
            )
        )
        for place, name in enumerate(names):
            parts += _cell(story, name, left + place * width, y, width, largest)
        parts += _bar(story, share(story, all_stories), right + 12, y)
    bottom = top + len(stories) * _ROW
    unnamed = "" if width >= 18 else "; targets in their order, named on hover"
    words = f"mean gradient norm; full colour at the largest, palest at a thousandth{unnamed}"
    parts.append(text(min(left, 60.0) if unnamed else left, bottom + 16, words))
    title = "Gradient norms by layer and target"
    return drawing(max(right + 130, left + 400), bottom + 26, title, parts)


def _heading(x: float, y: float, name: str) -> Html:
    at = {"x": f"{x:.1f}", "y": f"{y:.1f}", "transform": f"rotate(-35 {x:.1f} {y:.1f})"}
    return tag("text", tag("title", name), clip(name, 14), **at, class_="t")


def _tail(name: str, length: int) -> str:
    """The end of a layer's name says more than its beginning."""
    return name if len(name) <= length else "…" + name[1 - length :]


def _cell(story: LayerStory, name: str, x: float, y: float, width: float, largest: float) -> list[Html]:
    norms = story.norms.get(name)
    if not norms:
        return []
    value = mean(norms)
    depth = math.log10(value / largest) / _DECADES + 1 if value > 0 and largest > 0 else 0.0
    note = tag("title", f"{name} in {story.name}: {plain(value)}")
    place = {"x": f"{x:.1f}", "y": f"{y:.1f}", "width": f"{width - 1:.1f}", "height": f"{_ROW - 1:.1f}"}
    box = tag("rect", note, **place, class_="pos", fill_opacity=f"{0.06 + 0.64 * min(max(depth, 0.0), 1.0):.2f}")
    if width < 44:
        return [box]
    return [box, text(x + width / 2, y + 14, plain(value), anchor="middle", class_="name")]


def _bar(story: LayerStory, part: float, x: float, y: float) -> list[Html]:
    note = tag("title", f"{story.name}: {100 * part:.1f} % of the conflict")
    place = {"x": f"{x:.1f}", "y": f"{y + 3:.1f}", "width": f"{70 * part:.1f}", "height": f"{_ROW - 7:.1f}"}
    return [tag("rect", note, **place, class_="neg", fill_opacity=0.7), text(x + 75 * part + 4, y + 14, _percent(part))]


def _percent(part: float) -> str:
    return f"{100 * part:.0f} %" if part >= 0.005 else "0"


def nuclear_lines(stories: Sequence[LayerStory], names: Sequence[str]) -> Html:
    """The nuclear norm of each target's gradient from layer to layer; layers are numbered as in the map.

    Args:
        stories: the layers in the order of the map, those without a matrix among them.
        names: the targets to draw, at most five.
    """
    curves = {
        name: [(row + 1.0, mean(story.nuclear[name])) for row, story in enumerate(stories) if name in story.nuclear]
        for name in names
    }
    highest = max(value for curve in curves.values() for _, value in curve)
    axes = Axes(62, 24, 410, 180, (0.5, len(stories) + 0.5), (0.0, 1.06 * highest or 1.0))
    bottom = axes.top + axes.height
    parts = axes.levels("nuclear norm")
    shown = sorted({x for curve in curves.values() for x, _ in curve})
    parts += [text(axes.px(x), bottom + 15, f"{x:.0f}", anchor="middle") for x in shown]
    parts.append(segment(axes.left, bottom, axes.left + axes.width, bottom, "zero"))
    parts.append(text(axes.left + axes.width / 2, bottom + 31, "layer, as numbered in the map", anchor="middle"))
    for index, (name, curve) in enumerate(curves.items()):
        dots = [axes.dot(point, "dot", 2.5, f"{name}, layer {point[0]:.0f}: {plain(point[1])}") for point in curve]
        parts.append(tag("g", tag("title", name), axes.line(curve, "stroke"), *dots, class_=f"p{index % 5}"))
    return drawing(490, bottom + 40, "Nuclear norms from layer to layer", parts)


def mean_step(stories: Sequence[LayerStory], name: str) -> float | None:
    """By how much neighbouring layers' nuclear norms of a target differ on average; None with fewer than two."""
    curve = [mean(story.nuclear[name]) for story in stories if name in story.nuclear]
    return mean([abs(b - a) for a, b in itertools.pairwise(curve)]) if len(curve) > 1 else None
