"""Small tables with a task column, and fits of them that take a second."""

from typing import Any

import numpy as np
import polars as pl

from motet.tabular import TaskColumnModel


def schools(num_rows: int = 800, num_tasks: int = 8, seed: int = 0) -> pl.DataFrame:
    """Scores that follow `x` and `hours` alike in every school, at a level of its own; a tenth are missing."""
    draw = np.random.default_rng(seed)
    school = np.arange(num_rows) % num_tasks
    x, hours = draw.normal(size=(2, num_rows))
    score = 10 + 2 * x + hours + 0.5 * school + 0.5 * draw.normal(size=num_rows)
    frame = pl.DataFrame({
        "x": x, "hours": hours, "noise": draw.normal(size=num_rows),
        "school": [f"s{code}" for code in school], "score": score,
    })  # fmt: skip
    return frame.with_columns(score=pl.when(pl.Series(draw.random(num_rows) < 0.9)).then("score"))


def quick_model(**settings: Any) -> TaskColumnModel:
    """One that trains LightGBM alone, unless told otherwise."""
    return TaskColumnModel("score:regression", task_column="school", **{"learners": (), "max_epochs": 2, **settings})
