"""The result of a grid as one document, and as a table for a terminal."""

import os
import platform
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

import motet
from motet.bench._claims import ledger
from motet.bench._gains import Gains
from motet.bench._grid import Grid, Measured

FORMAT = 1


def result(measured: Measured, grid: Grid, *, command: str, jobs: int = 1) -> dict[str, Any]:
    """The document of a measured grid.

    Args:
        measured: the cells.
        grid: what was asked for.
        command: the words that repeat it.
        jobs: processes at once.
    """
    comparison = grid.comparison
    gains = Gains(measured.cells, measured.problems, comparison.base)
    return {
        "format": FORMAT, "bench": comparison.name, "command": command, "versions": _versions(),
        "hardware": _hardware(), "budget": grid.budget.name, "seeds": list(grid.seeds),
        "threads": grid.threads, "jobs": jobs, "training": comparison.training, "costs_against": comparison.base,
        "interval": "95%, Student's t over seeds, of the difference to the single-task networks of the same seed",
        "problems": measured.problems, "left_out": measured.left_out,
        "methods": {method: _by_problem(gains, method) for method in gains.methods},
        "overall": {method: _overall(gains, method) for method in gains.methods},
        "claims": ledger(gains, comparison.claims),
        "cells": measured.cells,
    }  # fmt: skip


def summary_rows(document: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of the table for a terminal: Δm of each problem with its interval, the best mean first."""
    problems = list(document["problems"])
    overall = document["overall"]

    def order(method: str) -> tuple[bool, float]:
        mean = overall[method]["mean_delta_m"]
        return (mean is None, -(mean or 0.0))

    rows = [
        [
            method, *(_shown(document["methods"][method][problem]) for problem in problems),
            _number(overall[method]["mean_delta_m"], "+.2f"), _number(overall[method]["cpu_ratio"], ".2f"),
        ]
        for method in sorted(document["methods"], key=order)
    ]  # fmt: skip
    return ["method", *problems, "mean", "time"], rows


def claim_counts(claims: Sequence[dict[str, Any]]) -> dict[str, int]:
    """How many claims came out in each way."""
    counts: dict[str, int] = {}
    for claim in claims:
        counts[claim["verdict"]] = counts.get(claim["verdict"], 0) + 1
    return counts


def _by_problem(gains: Gains, method: str) -> dict[str, Any]:
    found = {}
    for problem in gains.problems:
        gain = gains.gain(problem, method)
        found[problem] = {
            "scores": gains.scores(problem, method),
            "delta_m": None if gain is None else gain.to_dict(),
            "parameters": gains.parameters(problem, method),
            "wall_ratio": gains.cost(problem, method),
            "cpu_ratio": gains.cost(problem, method, "cpu_seconds"),
            "failures": gains.failures(problem, method),
        }
    return found


def _overall(gains: Gains, method: str) -> dict[str, Any]:
    """Means over the problems; None where the method lacks a problem, since means over others do not compare."""
    found = [gains.gain(problem, method) for problem in gains.problems]
    means = [gain.mean for gain in found if gain]
    return {
        "mean_delta_m": round(float(np.mean(means)), 4) if len(means) == len(found) else None,
        "wall_ratio": _geometric([gains.cost(problem, method) for problem in gains.problems]),
        "cpu_ratio": _geometric([gains.cost(problem, method, "cpu_seconds") for problem in gains.problems]),
    }


def _geometric(ratios: Sequence[float | None]) -> float | None:
    known = [ratio for ratio in ratios if ratio]
    return round(float(np.exp(np.mean(np.log(known)))), 2) if len(known) == len(ratios) else None


def _shown(entry: dict[str, Any]) -> str:
    gain = entry["delta_m"]
    if gain is None:
        return "failed" if entry["failures"] else "-"
    interval = gain["ci95"]
    return f"{gain['mean']:+.2f}" + (f" [{interval[0]:+.2f}, {interval[1]:+.2f}]" if interval else "")


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _versions() -> dict[str, str]:
    return {"motet": motet.__version__, "torch": torch.__version__, "numpy": np.__version__,
            "python": platform.python_version()}  # fmt: skip


def _hardware() -> dict[str, Any]:
    return {"system": platform.system(), "machine": platform.machine(), "processor": _processor(),
            "cores": os.cpu_count()}  # fmt: skip


def _processor() -> str:
    if sys.platform == "linux":
        try:
            with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123 -- a device file
                return next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "")
        except OSError:
            return ""
    return platform.processor()
