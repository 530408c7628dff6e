"""Axes drawn as SVG by hand: small, the same on every machine, and coloured by the page, so dark mode reads too."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from motet.report._html import Html, tag

Point = tuple[float, float]


@dataclass(frozen=True)
class Axes:
    """A rectangle of the drawing and the values that its edges stand for; pixels run down, values run up."""

    left: float
    top: float
    width: float
    height: float
    x: Point
    y: Point

    def px(self, value: float) -> float:
        """The pixel column of a value on the x axis."""
        return self.left + self.width * (value - self.x[0]) / ((self.x[1] - self.x[0]) or 1.0)

    def py(self, value: float) -> float:
        """The pixel row of a value on the y axis."""
        return self.top + self.height * (1 - (value - self.y[0]) / ((self.y[1] - self.y[0]) or 1.0))

    def line(self, points: Sequence[Point], class_: str) -> Html:
        """A line through points given in values."""
        path = " ".join(f"{self.px(x):.1f},{self.py(y):.1f}" for x, y in points)
        return tag("polyline", points=path, class_=class_)

    def dot(self, point: Point, class_: str, radius: float, note: str = "") -> Html:
        """A dot at a point given in values, with a note that shows on hover."""
        centre = {"cx": f"{self.px(point[0]):.1f}", "cy": f"{self.py(point[1]):.1f}"}
        return tag("circle", *([tag("title", note)] if note else []), **centre, r=radius, class_=class_)

    def columns(self, name: str = "", num_ticks: int = 4) -> list[Html]:
        """Upright grid lines with their labels, and the name of the x axis."""
        bottom = self.top + self.height
        parts: list[Html] = []
        for value in ticks(*self.x, num_ticks):
            at = self.px(value)
            parts += [segment(at, self.top, at, bottom, "g"), text(at, bottom + 15, label(value), anchor="middle")]
        return [*parts, text(self.left + self.width / 2, bottom + 31, name, anchor="middle")] if name else parts

    def levels(self, name: str = "", num_ticks: int = 4) -> list[Html]:
        """Level grid lines with their labels, and the name of the y axis above them."""
        right = self.left + self.width
        parts: list[Html] = []
        for value in ticks(*self.y, num_ticks):
            at = self.py(value)
            parts += [segment(self.left, at, right, at, "g"), text(self.left - 6, at + 4, label(value), anchor="end")]
        return [*parts, text(self.left - 6, self.top - 8, name)] if name else parts


def segment(x1: float, y1: float, x2: float, y2: float, class_: str) -> Html:
    """A straight line in pixels."""
    return tag("line", x1=f"{x1:.1f}", y1=f"{y1:.1f}", x2=f"{x2:.1f}", y2=f"{y2:.1f}", class_=class_)


def text(x: float, y: float, words: str, *, anchor: str = "start", class_: str = "t") -> Html:
    """Words at a pixel."""
    return tag("text", words, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor, class_=class_)


def drawing(width: float, height: float, name: str, parts: Sequence[Html]) -> Html:
    """An inline SVG; `name` says to a screen reader what it shows."""
    box = f"0 0 {width:.0f} {height:.0f}"
    return tag("svg", *parts, role="img", aria_label=name, viewBox=box, width=f"{width:.0f}", height=f"{height:.0f}")


def ticks(low: float, high: float, num_ticks: int = 4) -> list[float]:
    """Round values inside [low, high], about `num_ticks` of them, in steps of 1, 2 or 5 times a power of ten.

    Example:
        >>> ticks(0.0, 1.0)
        [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    if not high > low:
        return [low]
    raw = (high - low) / num_ticks
    power = 10.0 ** math.floor(math.log10(raw))
    step = min((factor * power for factor in (1, 2, 5, 10)), key=lambda size: abs(math.log(size / raw)))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]


def label(value: float) -> str:
    """A tick's label."""
    if value != 0 and (abs(value) >= 1e6 or abs(value) < 1e-4):
        return f"{value:.3g}".replace("-", "−")
    return f"{value:,.6g}".replace("-", "−")


def clip(name: str, length: int) -> str:
    """`name` cut to `length` characters; the whole name belongs in a title beside it."""
    return name if len(name) <= length else name[: length - 1] + "…"


def padded(values: Sequence[float]) -> Point:
    """The range of `values` with a little room on both sides; of width one around a single value."""
    low, high = min(values), max(values)
    room = (high - low) * 0.06 or max(abs(high) * 0.05, 1e-9)
    return low - room, high + room
