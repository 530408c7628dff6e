"""Learning curves out of the log: for each task, each stage's scores on the stop rows."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from motet.report._results import Result, mapping, number
from motet.report._svg import Point
from motet.report._words import model_name

BOOSTING = ("own_lightgbm", "own_catboost")
_MOST_POINTS = 150  # per curve, so that 64 tasks stay a small page


@dataclass(frozen=True)
class Series:
    """One curve: a stage's scores on a task. `is_level` marks boosting, whose rounds are not the network's epochs."""

    stage: str
    points: list[Point]
    best: Point

    @property
    def label(self) -> str:
        """The stage in plain words."""
        return model_name(self.stage)

    @property
    def is_level(self) -> bool:
        """Whether only the best score is comparable."""
        return self.stage in BOOSTING


def learning_curves(log: Iterable[dict[str, Any]], results: Sequence[Result]) -> tuple[dict[str, list[Series]], str]:
    """Curves by task, and the name of the x axis: epoch where every evaluation has one, else step."""
    events = [event for event in log if event.get("event") == "evaluate"]
    networks = [event for event in events if _stage(event) not in BOOSTING]
    axis = "epoch" if networks and all(number(event.get("epoch")) is not None for event in networks) else "step"
    found: dict[tuple[str, str], dict[float, float]] = {}
    for event in events:
        at = number(event.get(axis))
        at = number(event.get("step")) if at is None else at
        for task, value in mapping(event.get("scores")).items():
            score = number(value)
            if at is not None and score is not None:
                # A resumed run repeats the steps after its last checkpoint: the later evaluation stands.
                found.setdefault((task, _stage(event)), {})[at] = score
    curves: dict[str, list[Series]] = {}
    for result in results:
        for (task, stage), scores in found.items():
            if task == result.name:
                curves.setdefault(task, []).append(_series(stage, scores, higher=result.higher_is_better))
    return curves, axis


def _stage(event: dict[str, Any]) -> str:
    return str(event.get("stage", "")).split(":", 1)[0]


def _series(stage: str, scores: dict[float, float], *, higher: bool) -> Series:
    points = sorted(scores.items())
    best = max(points, key=lambda point: point[1] if higher else -point[1])
    stride = -(-len(points) // _MOST_POINTS)
    kept = [point for index, point in enumerate(points) if index % stride == 0 or point in (best, points[-1])]
    return Series(stage, kept, best)
