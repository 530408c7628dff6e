"""metrics.json as typed results: one for each task, with None for whatever the run could not measure."""

import math
from dataclasses import dataclass
from typing import Any

from motet.report._read import check

Interval = tuple[float, float]


@dataclass(frozen=True)
class Candidate:
    """One model that competed for a task: its score and every metric on the test rows."""

    name: str
    score: float | None
    metrics: dict[str, float | None]


@dataclass(frozen=True)
class Guard:
    """The comparison on the choose rows that decided who serves; `together` with other tasks where rows were few."""

    own: str
    margin: float | None
    gain: float | None
    interval: Interval | None
    verdict: str
    tested: str = ""
    tasks: int = 1


@dataclass(frozen=True)
class Result:
    """What metrics.json says about one task; scores are on the test rows, gains in percent."""

    name: str
    kind: str
    metric: str
    higher_is_better: bool
    unit: str
    constant: float | None
    single: float | None
    motet: float | None
    gain: float | None
    interval: Interval | None
    served_by: str
    predictable: bool | None
    candidates: list[Candidate]
    guard: Guard | None
    calibration: dict[str, Any]
    coverage: dict[str, Any]

    @property
    def is_shared(self) -> bool:
        """Whether the shared model serves this task."""
        return self.served_by == "shared"

    @property
    def margin(self) -> float:
        """The guard's margin in percent; zero where there was no guard."""
        return self.guard.margin if self.guard and self.guard.margin is not None else 0.0


def number(value: object) -> float | None:
    """A finite number, or None: NaN is written as null, and a skipped score is null too."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def numbers(value: object) -> list[float | None]:
    """A list of finite numbers and None, empty when `value` is not a list."""
    return [number(item) for item in value] if isinstance(value, list) else []


def interval(value: object) -> Interval | None:
    """A pair of finite numbers, or None."""
    ends = numbers(value)
    if len(ends) != 2 or ends[0] is None or ends[1] is None:
        return None
    return ends[0], ends[1]


def read_results(metrics: dict[str, Any]) -> list[Result]:
    """The tasks of metrics.json, in its order.

    Raises:
        RunError: a task lacks its kind or metric.
    """
    check("metrics.json", "tasks", metrics.get("tasks"), dict)
    return [_result(str(name), task) for name, task in metrics["tasks"].items()]


def _result(name: str, task: object) -> Result:
    check("metrics.json", f"tasks.{name}", task, dict)
    data: dict[str, Any] = task if isinstance(task, dict) else {}
    for key in ("kind", "metric"):
        check("metrics.json", f"tasks.{name}.{key}", data.get(key), str)
    predictable = data.get("predictable")
    return Result(
        name=name,
        kind=data["kind"],
        metric=data["metric"],
        higher_is_better=bool(data.get("higher_is_better", True)),
        unit=str(data.get("unit") or ""),
        constant=number(data.get("constant")),
        single=number(data.get("single_task")),
        motet=number(data.get("motet")),
        gain=number(data.get("gain_percent")),
        interval=interval(data.get("ci95")),
        served_by=str(data.get("served_by") or ""),
        predictable=predictable if isinstance(predictable, bool) else None,
        candidates=[_candidate(key, value) for key, value in mapping(data.get("candidates")).items()],
        guard=_guard(mapping(data.get("guard"))),
        calibration=mapping(data.get("calibration")),
        coverage=mapping(data.get("interval")),
    )


def mapping(value: object) -> dict[str, Any]:
    """`value` when it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def _candidate(name: str, value: object) -> Candidate:
    data = mapping(value)
    metrics = {key: number(item) for key, item in mapping(data.get("metrics")).items()}
    return Candidate(name, number(data.get("score")), metrics)


def _guard(data: dict[str, Any]) -> Guard | None:
    if not data:
        return None
    return Guard(
        own=str(data.get("own") or ""),
        margin=number(data.get("margin_percent")),
        gain=number(data.get("gain_percent")),
        interval=interval(data.get("ci95")),
        verdict=str(data.get("verdict") or ""),
        tested=str(data.get("tested") or ""),
        tasks=int(number(data.get("tasks")) or 1),
    )
