"""Who conflicts with whom: mean gradient cosines over training, the sentence that reads them, and the heat map."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from motet.report._html import Html, tag
from motet.report._results import number, numbers
from motet.report._svg import Point, clip, drawing, text
from motet.report._words import listed, minus

_OPPOSED = -0.05  # a mean cosine above this is too near zero to be called a conflict


@dataclass(frozen=True)
class Pair:
    """Two tasks and the cosine of their gradients: the mean, and each measurement by step."""

    first: str
    second: str
    points: list[Point]

    @property
    def mean(self) -> float:
        """The mean cosine."""
        return sum(value for _, value in self.points) / len(self.points)

    @property
    def num_opposed(self) -> int:
        """At how many measurements the cosine was negative."""
        return sum(value < 0 for _, value in self.points)


def conflicts(log: Iterable[dict[str, Any]], names: Sequence[str]) -> list[Pair]:
    """Each measured pair of tasks, lowest mean cosine first; a batch that lacks a task leaves its cosine null."""
    order = {name: index for index, name in enumerate(names)}
    found: dict[tuple[str, str], dict[float, float]] = {}
    for event in _events(log):
        tasks = [str(name) for name in event.get("tasks") or []]
        rows = event.get("cosines")
        step = number(event.get("step")) or 0.0
        for i, row in enumerate(rows if isinstance(rows, list) else []):
            for j, cosine in enumerate(numbers(row)[:i]):
                if cosine is not None and i < len(tasks) and tasks[i] in order and tasks[j] in order:
                    first, second = sorted((tasks[i], tasks[j]), key=order.__getitem__)
                    found.setdefault((first, second), {})[step] = cosine
    pairs = [Pair(first, second, sorted(points.items())) for (first, second), points in found.items()]
    return sorted(pairs, key=lambda pair: pair.mean)


def _events(log: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in log if event.get("event") == "conflict" and event.get("stage", "shared") == "shared"]


def conflict_sentences(pairs: Sequence[Pair]) -> list[str]:
    """What the cosines say, the lowest and the highest pair by name."""
    lowest, highest = pairs[0], pairs[-1]
    opposed = [pair for pair in pairs if pair.mean < _OPPOSED]
    sentences = [
        f"`{pair.first}` and `{pair.second}` pull in opposite directions on average, cosine {_two(pair.mean)} "
        f"(negative at {pair.num_opposed} of {len(pair.points)} measurements)."
        for pair in opposed[:3]
    ]
    if len(opposed) > 3:
        sentences.append(f"So do {len(opposed) - 3} more of the {len(pairs)} pairs.")
    if not opposed:
        sentences.append(
            "No two targets pull in opposite directions on average; the lowest pair is "
            f"{listed([lowest.first, lowest.second])}, cosine {_two(lowest.mean)}."
        )
    if highest.mean > -_OPPOSED and len(pairs) > 1:
        names = listed([highest.first, highest.second])
        sentences.append(f"{names} agree most, cosine {_two(highest.mean)}.")
    return sentences


def _two(cosine: float) -> str:
    return minus(f"{cosine:.2f}")


def norm_sentence(log: Iterable[dict[str, Any]]) -> str:
    """Which task's gradient is the largest on average and which the smallest; empty when not measured."""
    found: dict[str, list[float]] = {}
    for event in _events(log):
        for name, norm in zip(event.get("tasks") or [], numbers(event.get("norms")), strict=False):
            if norm is not None:
                found.setdefault(str(name), []).append(norm)
    means = sorted((sum(norms) / len(norms), name) for name, norms in found.items())
    if len(means) < 2 or means[0][0] <= 0:
        return ""
    (small, smallest), (large, largest) = means[0], means[-1]
    return f"The largest gradient on average is that of `{largest}`, {large / small:.1f} times that of `{smallest}`."


def heat_map(pairs: Sequence[Pair], names: Sequence[str]) -> Html:
    """Mean cosines as a triangle of cells; the stronger the colour, the farther from zero."""
    size = min(max(560 / len(names), 9.0), 46.0)
    long = 26 if size >= 12 else 18
    left = 14 + (6.6 if size >= 12 else 5.0) * (min(max(map(len, names)), long - 3) + 3)
    limit = max([abs(pair.mean) for pair in pairs] + [0.3])
    place = {name: index for index, name in enumerate(names)}
    font = f"font-size: {min(12.0, size - 1):.0f}px"
    parts: list[Html] = []
    for i, name in enumerate(names):
        shown = clip(name, long - 3) + (f" {i + 1}" if size >= 16 else "")
        at = {"x": f"{left - 5:.1f}", "y": f"{(i + 0.5) * size + 4:.1f}"}
        parts.append(tag("text", tag("title", name), shown, **at, text_anchor="end", style=font))
        if size >= 16:
            parts.append(text(left + (i + 0.5) * size, (i + 0.5) * size + 4, str(i + 1), anchor="middle"))
    for pair in pairs:
        i, j = sorted((place[pair.first], place[pair.second]), reverse=True)
        parts += _cell(pair, left + j * size, i * size, size, abs(pair.mean) / limit)
    high = len(names) * size + 34
    words = f"blue: same direction, orange: opposite; full colour at ±{limit:.2f}"
    parts.append(text(max(left - 5, 4), high - 12, words))
    return drawing(
        max(left + len(names) * size + 8, left + 340), high, "Mean gradient cosines of pairs of tasks", parts
    )


def _cell(pair: Pair, x: float, y: float, size: float, strength: float) -> list[Html]:
    note = tag("title", f"{pair.first} and {pair.second}: {minus(f'{pair.mean:.3f}')}")
    place = {"x": f"{x:.1f}", "y": f"{y:.1f}", "width": f"{size - 1:.1f}", "height": f"{size - 1:.1f}"}
    box = tag(
        "rect", note, **place, class_="pos" if pair.mean >= 0 else "neg", fill_opacity=f"{0.08 + 0.72 * strength:.2f}"
    )
    if size < 34:
        return [box]
    return [box, text(x + size / 2, y + size / 2 + 4, _two(pair.mean), anchor="middle", class_="name")]
