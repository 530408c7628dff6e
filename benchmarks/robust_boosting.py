"""Robust multi-task boosting against LightGBM on the pooled rows with the task as a category.

The four scenarios of the R-MTGB paper: random functions on five features, ten tasks of 300 train and 1000 test rows
each. 1: all tasks are one function. 2: each its own. 3: nine tenths common, one tenth its own. 4: as 3, but two of the
ten share another common function. A fifth of the train rows, the same for every contender, is for stopping; the rival's
leaves are tuned on it.

python benchmarks/robust_boosting.py --out benchmarks/results/robust_boosting.json
"""

import argparse
import json
import os
import platform
import time
from pathlib import Path

import lightgbm
import numpy as np

from motet.tabular.boosting import RMTGB, TaskRows
from motet.tasks import Regression

TASKS, OUTLIERS, FEATURES, TRAIN, TEST, WAVES = 10, 2, 5, 300, 1000, 500
LENGTH = 0.25 * FEATURES
STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 8: 2.365, 10: 2.262}
NAMES = np.array([f"task {number}" for number in range(TASKS)])


def random_function(draw: np.random.Generator):
    """A smooth random function by random Fourier features."""
    ways, shifts, sizes = (
        draw.normal(size=(WAVES, FEATURES)),
        draw.uniform(0, 2 * np.pi, WAVES),
        draw.normal(size=WAVES),
    )
    return lambda x: np.cos(x @ ways.T / LENGTH + shifts) @ sizes * np.sqrt(2 / WAVES)


def scenario(number: int, seed: int) -> tuple[TaskRows, TaskRows, TaskRows]:
    """Train, stop and test rows."""
    draw = np.random.default_rng([seed, number])
    common, other = random_function(draw), random_function(draw)
    parts: list[list[tuple]] = [[], [], []]
    for task in range(TASKS):
        own = random_function(draw)
        base = other if number == 4 and task >= TASKS - OUTLIERS else common
        share = {1: 0.0, 2: 1.0}.get(number, 0.1)
        x = draw.uniform(-1, 1, (TRAIN + TEST, FEATURES)).astype(np.float32)
        y = (1 - share) * base(x) + share * own(x)
        cuts = (TRAIN * 4 // 5, TRAIN)
        for part, rows in zip(parts, np.split(np.arange(TRAIN + TEST), cuts), strict=True):
            part.append((x[rows], np.full(len(rows), NAMES[task]), y[rows]))
    return tuple(TaskRows(*(np.concatenate(pieces) for pieces in zip(*part, strict=True))) for part in parts)


def rival(train: TaskRows, stop: TaskRows, test: TaskRows) -> np.ndarray:
    """LightGBM with the task as a category; of 15, 31 and 63 leaves what is best on the stop rows."""
    coded = [np.column_stack([rows.matrix, np.searchsorted(NAMES, rows.owners)]) for rows in (train, stop, test)]
    best, answers = np.inf, np.zeros(0)
    for leaves in (15, 31, 63):
        data = lightgbm.Dataset(coded[0], train.targets, categorical_feature=[FEATURES], params={"verbosity": -1})
        model = lightgbm.train(
            {"learning_rate": 0.05, "num_leaves": leaves, "verbosity": -1, "num_threads": 1, "metric": "l2"},
            data, 2000, valid_sets=[data.create_valid(coded[1], stop.targets)],
            callbacks=[lightgbm.early_stopping(50, verbose=False)],
        )  # fmt: skip
        if model.best_score["valid_0"]["l2"] < best:
            best, answers = model.best_score["valid_0"]["l2"], model.predict(coded[2])
    return answers


def measure(number: int, seed: int) -> dict:
    """One repetition: RMSE of each contender, mean over tasks, and what the split said."""
    train, stop, test = scenario(number, seed)
    started = time.process_time()
    task = Regression("y", center=float(train.targets.mean()), scale=float(train.targets.std()))
    model, _ = RMTGB.fit(task, train, stop, seed=seed)
    ours_seconds = time.process_time() - started
    found = {"motet": model.estimate(test.matrix, test.owners)}
    started = time.process_time()
    found["lightgbm_task_id"] = rival(train, stop, test)
    errors = {name: [float(np.sqrt(np.mean((part - test.targets)[test.owners == task] ** 2))) for task in NAMES]
              for name, part in found.items()}  # fmt: skip
    return {
        "scenario": number, "seed": seed, "plan": model.plan,
        "rmse": {name: round(float(np.mean(part)), 4) for name, part in errors.items()},
        "rmse_ordinary": {name: round(float(np.mean(part[:-OUTLIERS])), 4) for name, part in errors.items()},
        "rmse_outliers": {name: round(float(np.mean(part[-OUTLIERS:])), 4) for name, part in errors.items()},
        "called_outliers": sorted(reading.task for reading in model.readings if reading.outlier),
        "cpu_seconds": {"motet": round(ours_seconds, 2), "lightgbm_task_id": round(time.process_time() - started, 2)},
    }  # fmt: skip


def summary(cells: list[dict]) -> dict:
    """The gain over the rival in percent by scenario, with its 95% interval over repetitions."""
    found = {}
    for number in sorted({cell["scenario"] for cell in cells}):
        part = [cell for cell in cells if cell["scenario"] == number]
        gains = np.array([100 * (1 - cell["rmse"]["motet"] / cell["rmse"]["lightgbm_task_id"]) for cell in part])
        half = STUDENT[len(part)] * gains.std(ddof=1) / len(part) ** 0.5 if len(part) in STUDENT else None
        found[str(number)] = {
            "repetitions": len(part),
            "rmse": {name: round(float(np.mean([cell["rmse"][name] for cell in part])), 4) for name in part[0]["rmse"]},
            "gain_percent": round(float(gains.mean()), 2),
            "ci95": None if half is None else [round(float(gains.mean() + side * half), 2) for side in (-1, 1)],
            "outliers_right": sum(
                cell["called_outliers"] == (sorted(NAMES[-OUTLIERS:]) if number == 4 else []) for cell in part
            ),
            "cpu_ratio": round(float(np.median(
                [cell["cpu_seconds"]["motet"] / cell["cpu_seconds"]["lightgbm_task_id"] for cell in part])), 2),
        }  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", default="3,3,3,4", help="Of the scenarios 1 to 4.")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    cells = []
    for number, count in enumerate(map(int, options.repetitions.split(",")), start=1):
        cells += [measure(number, seed) for seed in range(count)]
    document = {
        "command": f"python benchmarks/robust_boosting.py --repetitions {options.repetitions}",
        "versions": {"lightgbm": lightgbm.__version__, "numpy": np.__version__, "python": platform.python_version()},
        "hardware": {"machine": platform.machine(), "cores": os.cpu_count(), "load_average": os.getloadavg()[0]},
        "interval": "95%, Student's t over repetitions, of the relative difference of the mean RMSE over tasks",
        "scenarios": summary(cells),
        "cells": cells,
    }
    if options.out:
        options.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(document["scenarios"]))


if __name__ == "__main__":
    main()
