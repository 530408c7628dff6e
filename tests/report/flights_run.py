"""The documents of a run, made by hand: four targets of flights, every part of the formats filled."""

import math
from typing import Any

NAMES = ["dep_delay", "arr_delay", "cancelled", "bucket"]

ABOUT: dict[str, Any] = {
    "format": 1,
    "status": "complete",
    "motet": "0.1.0",
    "created": "2026-01-31T12:00:00+00:00",
    "seed": 7,
    "time_limit": 300.0,
    "versions": {"python": "3.11.7", "torch": "2.13.0"},
    "machine": {"system": "Linux", "processor": "x86_64", "cores": 2, "device": "cpu"},
    "data": {"source": "/home/someone/flights.parquet", "fingerprint": "9f3ac1", "rows": 336776, "columns": 30},
    "split": {"how": "random", "train": 215537, "stop": 33678, "choose": 33678, "test": 53883},
    "schema": [
        {"name": "carrier", "role": "category", "used": True, "reason": "16 distinct strings"},
        {"name": "distance", "role": "number", "used": True, "reason": "numbers, 214 distinct"},
        {"name": "tailnum", "role": "identifier", "used": False, "reason": "4,043 distinct of 10,000"},
        {"name": "year", "role": "constant", "used": False, "reason": "always 2013"},
        *({"name": name, "role": "target", "used": False, "reason": "asked for"} for name in NAMES),
    ],
    "leaks": [],
    "features": {},
    "tasks": [{"kind": "regression", "name": name} for name in NAMES],
    "networks": {},
    "serving": {name: {"served_by": "shared"} for name in NAMES},
    "notes": ["`tailnum` was left out: too many distinct values."],
}


def regression(**changes: Any) -> dict[str, Any]:
    task = {
        "kind": "regression",
        "metric": "rmse",
        "higher_is_better": False,
        "unit": "min",
        "constant": 40.21,
        "single_task": 34.5,
        "motet": 34.01,
        "gain_percent": 1.42,
        "ci95": [1.1, 1.75],
        "served_by": "shared",
        "predictable": True,
        "skill_ci95": [0.14, 0.17],
        "candidates": {
            "shared": {"score": 34.01, "metrics": {"rmse": 34.01, "mae": 17.3, "r2": 0.285}},
            "own_network": {"score": 34.9, "metrics": {"rmse": 34.9, "mae": 17.9, "r2": 0.26}},
            "own_lightgbm": {"score": 34.5, "metrics": {"rmse": 34.5, "mae": 17.61, "r2": 0.28}},
        },
        "guard": {
            "own": "own_lightgbm",
            "margin_percent": 0.5,
            "gain_percent": 1.31,
            "ci95": [0.9, 1.6],
            "verdict": "not worse",
        },
        "interval": {"level": 0.9, "coverage": 0.902, "mean_width": 81.2},
    }
    return task | changes


def binary(**changes: Any) -> dict[str, Any]:
    predicted = [0.004, 0.02, 0.06, 0.15, 0.33, 0.61]
    task = {
        "kind": "binary",
        "metric": "roc_auc",
        "higher_is_better": True,
        "unit": "",
        "constant": 0.5,
        "single_task": 0.9531,
        "motet": 0.9531,
        "gain_percent": 0.0,
        "ci95": [0.0, 0.0],
        "served_by": "own_lightgbm",
        "predictable": True,
        "skill_ci95": [0.45, 0.46],
        "candidates": {
            "shared": {"score": 0.9464, "metrics": {"roc_auc": 0.9464, "log_loss": 0.083}},
            "own_network": {"score": 0.9411, "metrics": {"roc_auc": 0.9411, "log_loss": 0.085}},
            "own_lightgbm": {"score": 0.9531, "metrics": {"roc_auc": 0.9531, "log_loss": 0.078}},
        },
        "guard": {
            "own": "own_lightgbm",
            "margin_percent": 0.5,
            "gain_percent": -0.72,
            "ci95": [-0.93, -0.51],
            "verdict": "worse",
        },
        "calibration": {
            "curve": {
                "predicted": predicted,
                "observed": [p * 1.1 for p in predicted],
                "count": [40000, 9000, 3000, 1200, 500, 183],
            },
            "error_before": 0.012,
            "error_after": 0.004,
        },
    }
    return task | changes


METRICS: dict[str, Any] = {
    "format": 1,
    "tasks": {
        "dep_delay": regression(),
        "arr_delay": regression(motet=36.4, single_task=36.8, constant=44.6, gain_percent=1.09, ci95=[0.8, 1.37]),
        "cancelled": binary(),
        "bucket": binary(kind="multiclass", metric="macro_roc_auc"),
    },
    "delta_m_percent": 0.63,
    "rows": {
        "train": 215537,
        "stop": 33678,
        "choose": 33678,
        "test": 53883,
        "labelled": {name: {"train": 210234, "stop": 32851, "choose": 32850, "test": 52561} for name in NAMES},
    },
    "seconds": {"shared": 100.0, "own_network": 98.0, "own_lightgbm": 60.0, "total": 262.0},
    "compute": {
        "shared": {"cpu_seconds": 190.0, "rows": 5000000},
        "own_network": {"cpu_seconds": 186.5, "rows": 4890000},
        "own_lightgbm": {"cpu_seconds": 118.0, "rows": None},
    },
}


def events(tasks: list[str], steps: int = 12) -> list[dict[str, Any]]:
    log: list[dict[str, Any]] = []
    for index in range(1, steps + 1):
        at = {"step": 100 * index, "epoch": index / 2, "seconds": 1.5 * index, "losses": {}}
        scores = {name: 50 - 8 * (1 - math.exp(-index / 3)) + k for k, name in enumerate(tasks)}
        log.append({"event": "evaluate", "stage": "shared", **at, "scores": scores})
        log += [
            {"event": "evaluate", "stage": f"own_network:{name}", **at, "scores": {name: scores[name] + 0.5}}
            for name in tasks
        ]
        cosines = [[_cosine(i, j, index) for j in range(len(tasks))] for i in range(len(tasks))]
        norms = [0.1 * (k + 1) for k in range(len(tasks))]
        where = {"stage": "shared", "step": 100 * index, "tasks": tasks}
        log.append({"event": "conflict", **where, "cosines": cosines, "norms": norms})
    log += [
        {"event": "evaluate", "stage": f"own_lightgbm:{name}", "step": 300, "epoch": None, "scores": {name: 42.5}}
        for name in tasks
    ]
    return log


def _cosine(i: int, j: int, index: int) -> float:
    if i == j:
        return 1.0
    # Tasks 0 and 2 oppose each other: -0.31 and -0.11 in turn, so -0.21 on average; the others agree a little.
    if {i, j} == {0, 2}:
        return -0.31 if index % 2 else -0.11
    return 0.8 if {i, j} == {0, 1} else 0.1 + 0.02 * ((i * j + index) % 3)
