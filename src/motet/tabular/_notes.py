"""What a reader of a run should know."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from motet.tabular._prepared import Prepared

ORDERED = 0.9  # correlation of neighbouring rows from which they look like a series


def notes_on(metrics: Mapping[str, Any], prepared: Prepared) -> list[str]:
    """What a reader of the run should know of its targets, its rows and its features."""
    notes = []
    for name, found in metrics["tasks"].items():
        if found["predictable"] is None:
            count = metrics["rows"]["labelled"][name]["test"]
            notes.append(
                f"'{name}' has too few labelled test rows ({count}), or rows too like their neighbours, to tell "
                "whether it is predictable."
            )
        elif not found["predictable"]:
            notes.append(f"'{name}' is not predictable from these columns: the served model does not beat a constant.")
    notes += [*_copy_notes(prepared), *_order_notes(prepared)]
    notes += [
        f"'{leak.feature}' alone predicts '{leak.task}' almost perfectly ({leak.metric} {leak.score:.4f}). It is used; "
        "if it is not known when predictions are made, ignore it."
        for leak in prepared.leaks
    ]
    return notes


def _copy_notes(prepared: Prepared) -> list[str]:
    """Targets whose labels are the same wherever both have one: counting them twice is no sharing."""
    rows = prepared.rows
    notes: list[str] = []
    for first, second in itertools.combinations(prepared.tasks, 2):
        both = np.flatnonzero((rows.present[first.name] & rows.present[second.name]).numpy())
        ours, theirs = (rows.targets[task.name].numpy()[both] for task in (first, second))
        if len(both) > 1 and ours.shape == theirs.shape and np.array_equal(ours, theirs, equal_nan=True):
            notes.append(
                f"'{second.name}' has the same labels as '{first.name}' wherever both have one; what serves one serves "
                "the other. Leave one out."
            )
    return notes


def _order_notes(prepared: Prepared) -> list[str]:
    """A warning where a random split would lie: rows in the order of time, each nearly its neighbour's copy."""
    if prepared.split.how != "random":
        return []
    likeness: dict[str, float] = {}
    for task in prepared.tasks:
        targets = prepared.rows.targets[task.name].numpy()[prepared.rows.present[task.name].numpy()]
        if targets.ndim == 1 and len(targets) > 50 and targets.std() > 0:
            likeness[task.name] = float(np.corrcoef(targets[:-1], targets[1:])[0, 1])
    name = max(likeness, key=lambda key: likeness[key], default="")
    if not name or not likeness[name] > ORDERED:
        return []
    note = (
        f"Neighbouring rows have nearly the same '{name}' (correlation {likeness[name]:.3f}), as rows in the order of "
        "time do. A random split then tests on the neighbours of training rows, and its scores are too good: use "
        "--split time or --split group with a --split-column."
    )
    return [note]
