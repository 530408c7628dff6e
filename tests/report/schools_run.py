"""The documents of a run with a task column, made by hand: four schools and one that had no labels."""

from typing import Any

COMMON: dict[str, Any] = {
    "kind": "regression", "metric": "rmse", "higher_is_better": False, "unit": "", "constant": 4.0,
    "skill_ci95": [0.2, 0.4], "predictable": True,
}  # fmt: skip


def guard(verdict: str, tested: str, tasks: int, rows: int) -> dict[str, Any]:
    return {
        "own": "own_lightgbm", "margin_percent": 0.5, "gain_percent": 6.0, "ci95": [1.0, 11.0], "verdict": verdict,
        "tested": tested, "tasks": tasks, "rows": rows,
    }  # fmt: skip


def school(**changes: Any) -> dict[str, Any]:
    """A task that the shared model serves, with test rows enough."""
    task = COMMON | {
        "single_task": 3.0, "motet": 2.7, "gain_percent": 10.0, "ci95": [4.0, 16.0], "served_by": "shared",
        "candidates": {"shared": {"score": 2.7, "metrics": {"rmse": 2.7}},
                       "own_lightgbm": {"score": 3.0, "metrics": {"rmse": 3.0}}},
        "guard": guard("not worse", "alone", 1, 40), "rows": 60, "train_rows": 240, "pooled": 2.8,
        "interval": {"level": 0.9, "coverage": 0.91, "mean_width": 8.0},
    }  # fmt: skip
    return task | changes


FEW = {"gain_percent": None, "ci95": None, "rows": 3, "train_rows": 12}
TASKS: dict[str, Any] = {
    "north": school(),
    "east": school(single_task=2.0, motet=2.0, gain_percent=0.0, ci95=[0.0, 0.0], served_by="own_lightgbm",
                   guard=guard("worse", "alone", 1, 40)),
    "south": school(**FEW, guard=guard("not worse", "together", 2, 90)),
    "west": school(**FEW, served_by="mean", guard=guard("not proven", "together", 2, 90)),
    "new": school(**FEW | {"train_rows": 0}, single_task=None, served_by="common", guard={}),
}  # fmt: skip
METRICS: dict[str, Any] = {
    "format": 1, "form": "task_column", "target": "score", "task_column": "school", "kind": "regression",
    "metric": "rmse", "higher_is_better": False, "served_by": "robust", "gain_percent": 3.5, "ci95": [1.0, 6.0],
    "overall": COMMON | {
        "single_task": 3.1, "motet": 2.75, "gain_percent": 11.3, "ci95": [7.0, 15.0], "served_by": "by task",
        "candidates": {
            "pooled": {"score": 2.85, "metrics": {"rmse": 2.85}}, "robust": {"score": 2.74, "metrics": {"rmse": 2.74}},
            "own_lightgbm": {"score": 3.1, "metrics": {"rmse": 3.1}},
            "by task": {"score": 2.75, "metrics": {"rmse": 2.75, "mae": 2.1}},
        },
    },
    "learners": {
        "pooled": {"test": 2.85, "choose_gain_percent": None, "choose_ci95": None},
        "robust": {"test": 2.74, "choose_gain_percent": 4.2, "choose_ci95": [1.1, 7.2]},
    },
    "tasks": TASKS, "delta_m_percent": 5.0, "rows": {"train": 400, "stop": 60, "choose": 60, "test": 129},
    "seconds": {"pooled": 1.0, "robust": 3.0, "own_lightgbm": 0.5, "total": 5.0},
    "compute": {"pooled": {"cpu_seconds": 1.0, "rows": 1000}},
}  # fmt: skip
ABOUT: dict[str, Any] = {
    "format": 1, "status": "complete", "form": "task_column", "seed": 0, "tasks": [{"kind": "regression"}],
    "data": {"source": "schools.parquet", "rows": 649, "columns": 5}, "split": {"how": "by task"},
    "schema": [{"name": "hours", "role": "number", "used": True, "reason": "numbers"}], "notes": [],
    "readings": [{"task": "east", "rows": 240, "share": 0.97, "gain_percent": 12.5, "outlier": True},
                 {"task": "north", "rows": 240, "share": 0.1, "gain_percent": 0.0, "outlier": False}],
}  # fmt: skip
EFFECTS: dict[str, Any] = {
    "format": 1, "table": "held.parquet",
    "effects": [
        {"target": "score", "metric": "rmse", "feature": "hours", "drop": 1.25, "low": 1.0, "high": 1.5, "share": 0.9},
        {"target": "score", "metric": "rmse", "feature": "noise", "drop": 0.0, "low": -0.1, "high": 0.1, "share": 0.0},
        {"target": "score", "metric": "rmse", "feature": "x<y", "drop": None, "low": None, "high": None, "share": None},
        {"target": "east", "metric": "rmse", "feature": "hours", "drop": 0.5, "low": 0.2, "high": 0.8, "share": 1.0},
    ],
    "checks": [{"target": "score", "verdict": "contradicted"}],
}  # fmt: skip
SLICES: dict[str, Any] = {
    "format": 1,
    "by": {"town": {"table": "held.parquet", "slices": [
        {"target": "score", "metric": "rmse", "slice": "Bonn", "rows": 60, "score": 2.5, "low": 2.2, "high": 2.8,
         "worse_by": -0.5, "worst": False, "proven": False},
        {"target": "score", "metric": "rmse", "slice": "Ulm", "rows": 50, "score": 3.0, "low": 2.6, "high": 3.4,
         "worse_by": 0.5, "worst": True, "proven": True},
        {"target": "score", "metric": "rmse", "slice": "Jena", "rows": 0, "score": None, "low": None, "high": None,
         "worse_by": None, "worst": False, "proven": False},
    ]}},
}  # fmt: skip
