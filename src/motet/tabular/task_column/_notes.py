"""What a reader of a task-column run, or of its predictions, should know."""

from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np

from motet.tabular.task_column._choice import BLEND
from motet.tabular.task_column._own import Own
from motet.tabular.task_column._served import COMMON
from motet.tabular.task_column._table import TaskTable

SHOWN = 5
PROVEN = {
    "not worse": "not worse than",
    "worse": "worse than",
    "not proven": "not proven to be as good as",
}


def fit_notes(table: TaskTable, metrics: Mapping[str, Any]) -> list[str]:
    """Of a fit: the table, the tasks that were not learned, those that keep their own model, and leaks."""
    tasks, notes = metrics["tasks"], list(table.notes)
    owners = table.encoded.owners
    learned = np.unique(owners[table.labelled("train")])
    unlearned = sorted(set(np.unique(owners).tolist()) - set(learned.tolist()))
    if unlearned:
        notes.append(
            f"{len(unlearned)} tasks have no labelled train row ({_shown(unlearned)}); they get what the others have "
            "in common."
        )
    together = [one["guard"] for one in tasks.values() if one["guard"].get("tested") == "together"]
    if together:
        first = together[0]
        notes.append(
            f"{len(together)} of {len(tasks)} tasks have too few choose rows to prove anything alone; {first['tasks']} "
            f"tasks were tested together on {first['rows']:,} rows: the shared model is {PROVEN[first['verdict']]} "
            "their own models there. That holds for them as a group."
        )
    for source, words in ((Own.name, "keep their own model"), (BLEND, "are answered by the mean of the two")):
        if named := [name for name, one in tasks.items() if one["served_by"] == source]:
            notes.append(f"{len(named)} of {len(tasks)} tasks {words} ({_shown(named)}).")
    if metrics["overall"]["predictable"] is False:
        notes.append(f"'{metrics['target']}' is not predictable from these columns: a constant does as well.")
    return notes + [
        f"'{leak.feature}' alone predicts '{leak.task}' almost perfectly ({leak.metric} {leak.score:.4f}). It is used; "
        "if it is not known when predictions are made, ignore it."
        for leak in table.prepared.leaks
    ]


def new_task_note(owners: np.ndarray, known: Set[str]) -> str:
    """Which rows of a table to predict belong to tasks that were not learned; empty where none do."""
    new = sorted(set(np.unique(owners).tolist()) - known)
    if not new:
        return ""
    rows = int(np.isin(owners, new).sum())
    return (
        f"{rows} of {len(owners)} rows belong to tasks that were not learned ({_shown(new)}); they get what the "
        f"learned tasks have in common ('{COMMON}'). Fit again with labels of theirs."
    )


def _shown(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
