"""What the choice is worth on rows that nothing has seen: what goes into `metrics.json`."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from motet.tabular._candidates import Candidates
from motet.tabular._guard import Comparison, HeldOut
from motet.tabular._judge import Judge, Judged, Rules, Trial
from motet.tabular._prepared import Prepared
from motet.tasks import Calibration, Interval, Task, calibration_curve, calibration_error, fit_interval

NUMBERS = ("regression", "count", "quantile")


@dataclass(frozen=True)
class Outcome:
    """The decision for one task, and its part of `metrics.json`.

    Args:
        task: the fitted task.
        served_by: `shared`, `own_network`, `own_lightgbm`, `own_catboost`, `own_linear`, `distilled` or `blend`.
        shares: how much each candidate gives to the answer; one alone unless it is a blend.
        calibration: of the answer.
        interval: of the answer, or None.
        document: the task's part of `metrics.json`.
    """

    task: Task
    served_by: str
    shares: dict[str, float]
    calibration: Calibration
    interval: Interval | None
    document: dict[str, Any]


def measure(judge: Judge, judged: Judged) -> Outcome:
    """What serves a task, on the test rows."""
    task, served, own, rules = judged.task, judged.served, judged.own, judge.rules
    choices, part = judge.parts[task.name], judge.tested(judged)
    bounds = fit_interval(task, choices.estimates[served], choices.targets, level=rules.level)
    gain = part.compare(served, own) if served != own else Comparison(0.0, 0.0, 0.0)
    document = _document(task, judged, part, gain, choices.skill(served, "constant")[0], rules)
    if len(part.targets):
        raw = judged.raw[served][judged.num_choose :]
        document |= _calibration_part(task, raw, part.estimates[served], part.targets)
        document |= _interval_part(bounds, part.estimates[served], part.targets, rules.level)
    return Outcome(task, served, judged.shares[served], judged.calibrations[served], bounds, plain(document))


def _document(
    task: Task, judged: Judged, part: HeldOut, gain: Comparison, again: float, rules: Rules
) -> dict[str, Any]:
    """One task's part of `metrics.json`; `again` is the lower end of the skill on the choose rows."""
    tests, tested, own, served, guard = part.estimates, part.targets, judged.own, judged.served, judged.guard
    skill = part.skill(served, "constant")
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
        "candidates": {name: _candidate(task, tests[name], tested) for name in judged.raw},
        "guard": {"own": own, "margin_percent": rules.margin, "gain_percent": guard.gain,
                  "ci95": [guard.low, guard.high], "verdict": guard.verdict(rules.margin)},
    }  # fmt: skip
    if served == "blend":
        document["shares"] = judged.shares["blend"]
    if judged.trial is not None:
        document["distilled"] = _trial(judged.trial, rules.margin)
    return document


def _trial(trial: Trial, margin: float) -> dict[str, Any]:
    found: dict[str, Any] = {"teacher": trial.teacher, "admitted": trial.admitted}
    for name, comparison in (("against_served", trial.served), ("against_own", trial.own)):
        found[name] = {"gain_percent": comparison.gain, "ci95": [comparison.low, comparison.high],
                       "verdict": comparison.verdict(margin)}  # fmt: skip
    return found


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
        **({"trials": found.trials} if found.trials else {}),
    })  # fmt: skip
