"""Who serves each target, and the proof: what goes into `metrics.json`."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from motet.tabular._candidates import Candidates
from motet.tabular._guard import Comparison, HeldOut
from motet.tabular._prepared import Prepared
from motet.tasks import (
    Calibration,
    Interval,
    Task,
    calibration_curve,
    calibration_error,
    fit_calibration,
    fit_interval,
)

OWN = ("own_network", "own_lightgbm")
NUMBERS = ("regression", "count", "quantile")


@dataclass(frozen=True)
class Rules:
    """How the guard decides.

    Args:
        margin: how much worse in percent the shared model may at most be, by the lower end of the interval.
        resamples: bootstrap resamples.
        level: share of rows that an interval is to cover.
        seed: of the resamples.
    """

    margin: float = 0.5
    resamples: int = 500
    level: float = 0.9
    seed: int = 0


@dataclass(frozen=True)
class Outcome:
    """The decision for one task, and its part of `metrics.json`."""

    task: Task
    served_by: str
    calibration: Calibration
    interval: Interval | None
    document: dict[str, Any]


def decide(prepared: Prepared, found: Candidates, rules: Rules) -> list[Outcome]:
    """Chooses on the choose rows who serves each task, and measures on the test rows what that is worth."""
    num_choose = len(prepared.split.choose)
    choose = prepared.weights(found.rows[:num_choose], resamples=rules.resamples, seed=rules.seed)
    test = prepared.weights(found.rows[num_choose:], resamples=rules.resamples, seed=rules.seed + 1)
    return [_decide(prepared, found, task, rules, choose, test) for task in prepared.tasks]


def _decide(
    prepared: Prepared, found: Candidates, task: Task, rules: Rules, choose: np.ndarray, test: np.ndarray
) -> Outcome:
    targets, present = prepared.targets(task, found.rows)
    first, num_choose = slice(None, len(choose[0])), int(present[: len(choose[0])].sum())
    choose, test = choose[:, present[first]], test[:, present[len(choose[0]) :]]
    chosen, tested = targets[:num_choose], targets[num_choose:]
    raw = {name: found.estimates[name][task.name][present] for name in ("shared", *OWN)}
    calibrations = {name: fit_calibration(task, part[:num_choose], chosen) for name, part in raw.items()}
    good = {name: calibrations[name].apply(part) for name, part in raw.items()}

    constant = task.baseline(prepared.targets(task, prepared.split.train)[0])
    good["constant"] = np.repeat(constant, len(targets), axis=0)
    chosen_part = HeldOut(task, {name: part[:num_choose] for name, part in good.items()}, chosen, choose)
    tests = {name: part[num_choose:] for name, part in good.items()}
    tested_part = HeldOut(task, tests, tested, test)
    # The trees stand for the target unless its own network is proven better: with few rows the better score is luck.
    own = "own_network" if chosen_part.compare("own_network", "own_lightgbm").low > 0 else "own_lightgbm"
    guard = chosen_part.compare("shared", own)
    verdict = guard.verdict(rules.margin)
    served = "shared" if verdict == "not worse" else own
    bounds = fit_interval(task, good[served][:num_choose], chosen, level=rules.level)
    gain = tested_part.compare(served, own) if served == "shared" else Comparison(0.0, 0.0, 0.0)
    skill = tested_part.skill(served, "constant")
    again = chosen_part.skill(served, "constant")[0]
    document = {
        "kind": task.kind,
        "metric": task.metric,
        "higher_is_better": task.higher_is_better,
        "unit": getattr(task, "unit", ""),
        "constant": _score(task, tests["constant"], tested),
        "skill_ci95": list(skill),
        # One interval would call one worthless target in forty predictable; two independent ones rarely do.
        "predictable": None if np.isnan(skill[0]) else skill[0] > 0 and not again <= 0,
        "single_task": _score(task, tests[own], tested),
        "motet": _score(task, tests[served], tested),
        "gain_percent": gain.gain,
        "ci95": [gain.low, gain.high],
        "served_by": served,
        "candidates": {name: _candidate(task, tests[name], tested) for name in ("shared", *OWN)},
        "guard": {"own": own, "margin_percent": rules.margin, "gain_percent": guard.gain,
                  "ci95": [guard.low, guard.high], "verdict": verdict},
    }  # fmt: skip
    if len(tested):
        document |= _calibration_part(task, raw[served][num_choose:], tests[served], tested)
        document |= _interval_part(bounds, tests[served], tested, rules.level)
    return Outcome(task, served, calibrations[served], bounds, plain(document))


def _calibration_part(task: Task, raw: np.ndarray, estimates: np.ndarray, targets: np.ndarray) -> dict[str, Any]:
    """How far probabilities were off before and after calibration; nothing for a number."""
    if task.kind in NUMBERS:
        return {}
    curve = calibration_curve(task, estimates, targets)
    before, after = (calibration_error(task, part, targets) for part in (raw, estimates))
    return {"calibration": {"curve": curve, "error_before": before, "error_after": after}}


def _interval_part(bounds: Interval | None, estimates: np.ndarray, targets: np.ndarray, level: float) -> dict[str, Any]:
    """How many test rows the intervals cover, and how wide they are; nothing for a task without them."""
    if bounds is None:
        return {}
    low, high = bounds.bounds(estimates)
    inside = (targets >= low) & (targets <= high)
    return {"interval": {"level": level, "coverage": float(inside.mean()), "mean_width": float((high - low).mean())}}


def _candidate(task: Task, estimates: np.ndarray, targets: np.ndarray) -> dict[str, Any]:
    return {
        "score": _score(task, estimates, targets),
        "metrics": task.metrics(estimates, targets) if len(targets) else {},
    }


def _score(task: Task, estimates: np.ndarray, targets: np.ndarray) -> float | None:
    return float(task.score(estimates, targets)[0]) if len(targets) else None


def plain(value: Any) -> Any:
    """JSON data: numpy numbers as Python's, tuples as lists, and null for what is not finite."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(item) for item in value]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (float, np.floating)):
        return round(float(value), 6) if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


def metrics_document(
    prepared: Prepared, found: Candidates, outcomes: list[Outcome], total_seconds: float
) -> dict[str, Any]:
    """The whole of `metrics.json`."""
    gains = [outcome.document["gain_percent"] for outcome in outcomes]
    known = [gain for gain in gains if gain is not None]
    parts = {name: getattr(prepared.split, name) for name in ("train", "stop", "choose", "test")}
    labelled = {
        task.name: {name: int(prepared.targets(task, rows)[1].sum()) for name, rows in parts.items()}
        for task in prepared.tasks
    }
    return plain({
        "format": 1,
        "tasks": {outcome.task.name: outcome.document for outcome in outcomes},
        "delta_m_percent": sum(known) / len(known) if known else None,
        "rows": {name: len(rows) for name, rows in parts.items()} | {"labelled": labelled},
        "seconds": {name: cost.seconds for name, cost in found.costs.items()} | {"total": total_seconds},
        "compute": {name: asdict(cost) for name, cost in found.costs.items()},
    })  # fmt: skip
