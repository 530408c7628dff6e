"""MultiTab-Bench: eight numbers that correlated polynomials of the features make."""

from pathlib import Path

import polars as pl

from motet.bench._problem import Problem, Schedule
from motet.bench._tables import table_problem
from motet.bench.synth import SynthSettings, synthesise
from motet.tasks import Regression

SCHEDULE = Schedule(epochs=10, batch_size=128, learning_rate=2e-3)
SETTINGS = SynthSettings(rows=6400, features=16, tasks=8, correlation=0.6, degree=(1, 2, 3))


def multitab_bench(data: Path | None, seed: int) -> Problem:  # noqa: ARG001 -- made, not read
    """Eight numbers of degree one to three, whose directions have an inner product of 0.6 with one another."""
    frame, _ = synthesise(SETTINGS, seed=seed)
    learned = pl.col("split") == "train"
    train, test = frame.filter(learned).drop("split"), frame.filter(~learned).drop("split")
    tasks = [Regression(name) for name in SETTINGS.names]
    return table_problem("multitab-bench", train, test, tasks, SCHEDULE)
