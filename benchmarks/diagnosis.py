"""What leaving the diagnosis on costs a training on a table: its share of the time, and one observation in steps.

Times are CPU seconds of the process, which other work on the machine disturbs less than the clock.

python benchmarks/diagnosis.py --tasks 3,16,64 --seconds 100 --out benchmarks/results/diagnosis.json
"""

import argparse
import json
import os
import platform
import time
from pathlib import Path

import numpy as np
import torch

from motet.balance import EqualWeighting
from motet.data import Features, TableRows
from motet.models import HardSharing, MultiTaskModel, TabularEncoder, bin_edges
from motet.tasks import Regression
from motet.train import Clock, LoopSettings, Trainer

ROWS, NUMBERS, BATCH, WIDTH = 40_000, 16, 512, 256
FIRST_STEPS = 5  # left out of the median: they warm up


def table(num_tasks: int) -> TableRows:
    """Seeded rows whose targets share part of their signal."""
    generator = np.random.default_rng(0)
    numbers = generator.normal(size=(ROWS, NUMBERS)).astype(np.float32)
    ways = generator.normal(size=(NUMBERS, num_tasks)) / NUMBERS**0.5
    values = np.tanh(numbers @ ways) + generator.normal(0, 0.5, (ROWS, num_tasks))
    targets = {f"t{k}": values[:, k].astype(np.float32) for k in range(num_tasks)}
    present = {name: np.ones(ROWS, dtype=bool) for name in targets}
    return TableRows(Features(numbers, np.zeros((ROWS, 0), dtype=np.int32)), targets, present)


def measure(num_tasks: int, seconds: float) -> dict[str, float]:
    """One training under a time limit, with every step and every observation timed."""
    rows = table(num_tasks)
    torch.manual_seed(0)
    encoder = TabularEncoder(bin_edges(rows.inputs["numbers"].numpy()), [], width=WIDTH)
    tasks = [Regression(f"t{k}", center=0.0, scale=1.0) for k in range(num_tasks)]
    model = MultiTaskModel(encoder, HardSharing(num_tasks, width=WIDTH), tasks)
    settings = LoopSettings(max_epochs=10_000, batch_size=BATCH, patience=10_000)
    trainer = Trainer(model, rows, settings, balancer=EqualWeighting(), stage="shared", emit=lambda _: None)
    steps, looks = timed(trainer, "_step"), timed(trainer.conflicts, "look")
    trained = trainer.fit(np.arange(ROWS - 4000), np.arange(ROWS - 4000, ROWS), clock=Clock(seconds))
    step = float(np.median(steps[FIRST_STEPS:]))
    return {
        "tasks": num_tasks,
        "cpu_seconds": round(trained.cost.cpu_seconds, 2),
        "steps": len(steps),
        "step_ms": round(1e3 * step, 2),
        "observations": len(looks),
        "observation_in_steps": round(float(np.median(looks)) / step, 2),
        "first_in_steps": round(looks[0] / step, 2),
        "share_percent": round(100 * sum(looks) / trained.cost.cpu_seconds, 2),
    }


def timed(thing: object, name: str) -> list[float]:
    """Puts a stopwatch around a method; the CPU seconds of its calls."""
    method, found = getattr(thing, name), []

    def call(*arguments: object) -> object:
        started = time.process_time()
        try:
            return method(*arguments)
        finally:
            found.append(time.process_time() - started)

    setattr(thing, name, call)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", default="3,16,64")
    parser.add_argument("--seconds", type=float, default=100.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cells = [measure(int(num_tasks), options.seconds) for num_tasks in options.tasks.split(",")]
    document = {
        "command": f"python benchmarks/diagnosis.py --tasks {options.tasks} --seconds {options.seconds:g} "
        f"--threads {options.threads}",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "table": {"rows": ROWS, "numbers": NUMBERS, "batch": BATCH, "width": WIDTH},
        "cells": cells,
    }
    if options.out:
        options.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(document))


if __name__ == "__main__":
    main()
