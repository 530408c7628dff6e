"""Scores of a served model on labelled rows."""

from typing import Any

import numpy as np

from motet.tabular._dependence import row_errors
from motet.tabular._guard import draw_weights
from motet.tabular._labelled import Labelled, Serving, interval_of


def evaluated(served: Serving, labelled: Labelled, *, resamples: int, seed: int) -> dict[str, dict[str, Any]]:
    """Every metric of each target on labelled rows, and the main metric's interval; rows of a series in blocks."""
    scores = {}
    for name, estimates in served.estimate(labelled.frame, list(labelled.tasks)).items():
        rows, task = np.flatnonzero(labelled.present[name]), labelled.tasks[name]
        found, targets = estimates[rows], labelled.targets[name][rows]
        values = task.metrics(found, targets) if len(rows) else {}
        together = labelled.together(rows, row_errors(task, found, targets))
        weights = draw_weights(len(rows), resamples=resamples, seed=seed, groups=together)
        ci95 = interval_of(task.score(found, targets, weights), len(rows), together) if len(rows) else (None, None)
        scores[name] = {"rows": len(rows), "metric": task.metric, "metrics": values, "ci95": ci95}
    return scores
