"""Estimates and scores of a model on rows of a table."""

from collections.abc import Sequence

import numpy as np
import torch

from motet.data import TableRows
from motet.models import MultiTaskModel

ROWS_AT_ONCE = 8192


@torch.inference_mode()
def estimate(
    model: MultiTaskModel, rows: TableRows, chosen: np.ndarray, tasks: Sequence[str] | None = None
) -> dict[str, np.ndarray]:
    """Each task's estimates for the chosen rows, (N,) or (N, K), in evaluation mode, a few thousand rows at a time."""
    if model.training:  # asking is free; telling every module so costs a third of a millisecond
        model.eval()
    device = next(model.parameters()).device
    parts: dict[str, list[np.ndarray]] = {}
    for start in range(0, max(1, len(chosen)), ROWS_AT_ONCE):
        batch = rows.take(chosen[start : start + ROWS_AT_ONCE]).to(device)
        for name, outputs in model(batch.inputs, tasks).items():
            parts.setdefault(name, []).append(model.tasks[name].estimate(outputs.float()).cpu().numpy())
    return {name: np.concatenate(pieces) for name, pieces in parts.items()}


def model_scores(model: MultiTaskModel, rows: TableRows, chosen: np.ndarray) -> dict[str, float]:
    """Each task's main metric on those of the chosen rows that have its label; NaN where it is not defined."""
    estimates = estimate(model, rows, chosen)
    scores = {}
    for name, task in model.tasks.items():
        present, targets = rows.present[name].numpy()[chosen], rows.targets[name].numpy()[chosen]
        scores[name] = (
            float(task.score(estimates[name][present], targets[present])[0]) if present.any() else float("nan")
        )
    return scores


def constant_scores(
    model: MultiTaskModel, rows: TableRows, train_rows: np.ndarray, chosen: np.ndarray
) -> dict[str, float]:
    """What the best constant of the training rows scores on the chosen rows for each task."""
    scores = {}
    for name, task in model.tasks.items():
        targets, present = rows.targets[name].numpy(), rows.present[name].numpy()
        known = chosen[present[chosen]]
        constant = task.baseline(targets[train_rows[present[train_rows]]])
        estimates = np.repeat(constant, len(known), axis=0)
        scores[name] = float(task.score(estimates, targets[known])[0]) if len(known) else float("nan")
    return scores
