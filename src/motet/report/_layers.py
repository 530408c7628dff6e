"""Where the tasks' gradients meet and oppose each other, layer by layer: read from the log, said and drawn."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from motet.report._read import objects
from motet.report._results import number, numbers
from motet.report._svg import Point
from motet.report._words import minus

_CONFLICT = 0.005  # a mean below this over all layers is too small to be placed anywhere
_TREND = 0.05  # a change of a cosine that is worth a sentence


@dataclass
class LayerStory:
    """One layer over training: its tasks' gradient norms and nuclear norms, its least cosines, its conflict."""

    name: str
    norms: dict[str, list[float]] = field(default_factory=dict)
    nuclear: dict[str, list[float]] = field(default_factory=dict)
    least: dict[float, float] = field(default_factory=dict)
    conflict: dict[float, float] = field(default_factory=dict)
    pairs: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    @property
    def points(self) -> list[Point]:
        """The least cosine by step."""
        return sorted(self.least.items())

    @property
    def mean_conflict(self) -> float:
        """The mean of its part of the fight."""
        return mean(list(self.conflict.values()))

    @property
    def lowest_pair(self) -> tuple[tuple[str, str], float] | None:
        """The two tasks with the lowest mean cosine here, and that cosine."""
        means = {pair: mean(cosines) for pair, cosines in self.pairs.items()}
        return min(means.items(), key=lambda found: found[1], default=None)


def mean(values: Sequence[float]) -> float:
    """The mean; 0 of nothing."""
    return sum(values) / len(values) if values else 0.0


def layer_stories(log: Iterable[dict[str, Any]], names: Sequence[str]) -> list[LayerStory]:
    """Every layer that the log measured, in its order; a resumed run's repeated steps count once, the later stands."""
    events: dict[float, dict[str, Any]] = {}
    for event in log:
        if event.get("event") == "diagnosis" and event.get("stage", "shared") == "shared":
            events[number(event.get("step")) or 0.0] = event
    stories: dict[str, LayerStory] = {}
    for step, event in sorted(events.items()):
        listed = event.get("tasks")
        tasks = [str(task) for task in listed] if isinstance(listed, list) else []
        for entry in objects(event.get("layers")):
            name = str(entry.get("layer"))
            _take(stories.setdefault(name, LayerStory(name)), step, entry, [t if t in names else None for t in tasks])
    return list(stories.values())


def _take(story: LayerStory, step: float, entry: dict[str, Any], tasks: Sequence[str | None]) -> None:
    for key, found in (("norms", story.norms), ("nuclear", story.nuclear)):
        for task, value in zip(tasks, numbers(entry.get(key)), strict=False):
            if task is not None and value is not None:
                found.setdefault(task, []).append(value)
    for key, by_step in (("least", story.least), ("conflict", story.conflict)):
        value = number(entry.get(key))
        if value is not None:
            by_step[step] = value
    rows = entry.get("cosines")
    for second, row in zip(tasks, rows if isinstance(rows, list) else [], strict=False):
        for first, cosine in zip(tasks, numbers(row), strict=False):
            if first is not None and second is not None and first != second and cosine is not None:
                story.pairs.setdefault((first, second), []).append(cosine)


def share(story: LayerStory, stories: Sequence[LayerStory]) -> float:
    """The layer's part of all conflict, from 0 to 1."""
    total = sum(one.mean_conflict for one in stories)
    return story.mean_conflict / total if total > 0 else 0.0


def layer_sentences(stories: Sequence[LayerStory]) -> list[str]:
    """Which layer carries the conflict, between whom, and whether it grows."""
    worst = max(stories, key=lambda story: story.mean_conflict)
    if sum(story.mean_conflict for story in stories) < _CONFLICT:
        return ["No layer carries a conflict to speak of: the targets' gradients agree or do not touch each other."]
    sentences = [f"`{worst.name}` carries the largest part of the conflict, {100 * share(worst, stories):.0f} % of it."]
    lowest = worst.lowest_pair
    if lowest is not None:
        (first, second), cosine = lowest
        sentences.append(f"The lowest pair there is `{first}` and `{second}`, cosine {_two(cosine)} on average.")
    points = [cosine for _, cosine in worst.points]
    half = len(points) // 2
    early, late = mean(points[:half]), mean(points[len(points) - half :])
    if half > 1 and abs(late - early) > _TREND:
        word = "deepened" if late < early else "eased"
        sentences.append(f"Its least cosine {word} over training, from {_two(early)} to {_two(late)}.")
    return sentences


def _two(cosine: float) -> str:
    return minus(f"{cosine:.2f}")
