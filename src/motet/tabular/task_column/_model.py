"""`TaskColumnModel`: one target, and a column that says which task each row belongs to."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl
import torch

from motet._errors import RequestError, suggest
from motet.data import FeatureEncoder, read_table
from motet.tabular._guard import HeldOut, draw_weights
from motet.tabular.boosting import TaskReading
from motet.tabular.task_column._learners import LEARNERS, MOST_HEADS, Budget, Learner, Robust
from motet.tabular.task_column._table import Encoded, TaskTable, owners_of, read_task_table, without_column
from motet.tasks import Task
from motet.tasks import from_dict as task_from_dict
from motet.train import Clock, read_json, read_tensors, write_json, write_tensors

FORMAT = 1
RESAMPLES = 500


class TaskColumnModel:
    """Learns one target of a table whose rows each belong to one task: a patient, a school, a shop, a field.

    Choose it where a column names the task and every row has one label; where every row has several labels, use
    `TabularModel`. Four learners are trained on the same split: LightGBM on all rows with the task as a category
    (`pooled`), R-MTGB (`robust`), a network with the task as a category (`embedding`) and one with a head for each task
    (`heads`). `pooled` serves unless another is proven better on the choose rows by a paired bootstrap. A row of a task
    never seen gets what the tasks have in common, and `notes_` says so.

    Args:
        target: a task, or a text `NAME` or `NAME:KIND`.
        task_column: names each row's task, as text or whole numbers.
        learners: which to train, of pooled, robust, embedding and heads; pooled always is.
        time_limit: seconds for the whole fit, or None.
        seed: of the split and of every learner.
        split: `group`, `time` or `given`; None gives each task its share of every part.
        split_column: what the split reads.
        roles: of columns, which override what is inferred.
        max_epochs: of the networks, or None to suit the table.

    Attributes:
        metrics_: for each learner its score on the test rows, over all and by task, and the proof; after `fit`.
        served_by_: the learner that answers.
        notes_: what a reader should know of the last call.

    Raises:
        RequestError: what was asked for cannot be done as asked.

    Cost: about eight LightGBM models on all rows and two networks, or the time limit. Above 200 tasks `heads` is left
        out.

    Example:
        >>> TaskColumnModel("score:regression", task_column="school").learners
        ('pooled', 'robust', 'embedding', 'heads')
    """

    def __init__(
        self,
        target: Task | str,
        *,
        task_column: str,
        learners: Sequence[str] = tuple(LEARNERS),
        time_limit: float | None = None,
        seed: int = 0,
        split: str | None = None,
        split_column: str | None = None,
        roles: Mapping[str, str] | None = None,
        max_epochs: int | None = None,
    ) -> None:
        for name in learners:
            if name not in LEARNERS:
                message = f"There is no learner '{name}'.{suggest(name, LEARNERS)} Choose of {', '.join(LEARNERS)}."
                raise RequestError(message)
        self.target, self.task_column = target, task_column
        self.learners = tuple(name for name in LEARNERS if name in {"pooled", *learners})
        self.time_limit, self.seed = time_limit, seed
        self.split, self.split_column, self.roles = split, split_column, roles
        self.max_epochs = max_epochs

    def fit(self, table: Any) -> Self:
        """Trains the learners, chooses on the choose rows and measures on the test rows."""
        clock = Clock(self.time_limit)
        ready = read_task_table(
            read_table(table), self.target, self.task_column, split=self.split, split_column=self.split_column,
            roles=self.roles or {}, seed=self.seed,
        )  # fmt: skip
        self._check_learnable(ready)
        self.task_, self.encoder_ = ready.task, ready.prepared.encoder
        self.notes_ = list(ready.notes)
        names = self._within_reach(ready)
        fitted: dict[str, Learner] = {}
        for number, name in enumerate(names):
            share = clock.part(0.9 / (len(names) - number))
            budget = Budget(share, self.seed, torch.get_num_threads(), self.max_epochs)
            fitted[name] = LEARNERS[name].fit(ready, budget)
        self.metrics_ = self._measure(ready, fitted)
        self.served_by_ = str(self.metrics_["served_by"])
        self._learner = fitted[self.served_by_]
        robust = fitted.get("robust", fitted["pooled"])
        self.readings_: list[TaskReading] = robust.model.readings if isinstance(robust, Robust) else []
        self._known = set(np.unique(ready.encoded.owners[ready.labelled("train")]).tolist())
        self._note_unlearned(ready)
        return self

    def predict(self, table: Any) -> pl.DataFrame:
        """What a person reads: a frame with the target's column, one row for each row of the table."""
        estimates = self._estimate(read_table(table))
        values = self.task_.read(estimates)
        return pl.DataFrame({self.task_.name: values.tolist() if values.dtype == object else values})

    def predict_proba(self, table: Any) -> pl.DataFrame:
        """A column for each class, in the task's order.

        Raises:
            RequestError: the target is a number.
        """
        found = self._estimate(read_table(table))
        classes = getattr(self.task_, "classes", None)
        if classes is None:
            message = f"Target '{self.task_.name}' is of kind {self.task_.kind}, which has no classes. Use predict."
            raise RequestError(message)
        columns = np.stack([1.0 - found, found], axis=1) if found.ndim == 1 else found
        return pl.DataFrame({str(label): columns[:, place] for place, label in enumerate(classes)})

    def outliers(self) -> list[TaskReading]:
        """The tasks that stand apart from the others, where splitting them off is proven better on the choose rows.

        `readings_` holds what robust boosting says of every task, proven or not.
        """
        interval = self.metrics_["learners"].get("robust", {}).get("choose_ci95") or [None]
        proven = interval[0] is not None and interval[0] > 0
        return [reading for reading in self.readings_ if reading.outlier and proven]

    def save(self, path: str | Path) -> None:
        """Writes the served learner into a folder, as `task_column.json` and `model.safetensors`."""
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        document, tensors = self._learner.to_files()
        write_tensors(folder / "model.safetensors", {name: part.contiguous() for name, part in tensors.items()})
        write_json(folder / "task_column.json", {
            "format": FORMAT, "task": self.task_.to_dict(), "task_column": self.task_column, "seed": self.seed,
            "features": self.encoder_.to_dict(), "known": sorted(self._known), "learner": document,
            "metrics": self.metrics_, "notes": self.notes_, "readings": [vars(part) for part in self.readings_],
        })  # fmt: skip

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads what `save` wrote."""
        data = read_json(Path(path) / "task_column.json")
        tensors, _ = read_tensors(Path(path) / "model.safetensors")
        task = task_from_dict(data["task"])
        model = cls(task, task_column=data["task_column"], seed=data["seed"])
        model.task_, model.encoder_ = task, FeatureEncoder.from_dict(data["features"])
        model.metrics_, model.notes_ = data["metrics"], data["notes"]
        model.served_by_ = data["metrics"]["served_by"]
        model._known = set(data["known"])
        model.readings_ = [TaskReading(**part) for part in data["readings"]]
        model._learner = LEARNERS[model.served_by_].from_files(task, data["learner"], tensors)
        return model

    def _estimate(self, frame: pl.DataFrame) -> np.ndarray:
        if not hasattr(self, "_learner"):
            message = (
                "This model is not fitted, so it has nothing to predict with. Call fit first, or load a saved one."
            )
            raise RequestError(message)
        owners = owners_of(frame, self.task_column)
        new = sorted(set(np.unique(owners).tolist()) - self._known)
        self.notes_ = []
        if new:
            rows = int(np.isin(owners, new).sum())
            shown = ", ".join(f"'{name}'" for name in new[:5]) + (", ..." if len(new) > 5 else "")
            self.notes_.append(
                f"{rows} of {len(owners)} rows belong to tasks that were not learned ({shown}); they get what the "
                "learned tasks have in common. Fit again with labels of theirs."
            )
        encoder = without_column(self.encoder_, self.task_column)
        return self._learner.estimate(Encoded(self.encoder_.transform(frame), encoder.transform(frame), owners))

    def _check_learnable(self, ready: TaskTable) -> None:
        if not len(ready.labelled("train")):
            message = f"Target '{ready.task.name}' has no label in the train rows. Give rows with labels there."
            raise RequestError(message)

    def _within_reach(self, ready: TaskTable) -> list[str]:
        num_tasks = len(np.unique(ready.encoded.owners[ready.labelled("train")]))
        if num_tasks <= MOST_HEADS or "heads" not in self.learners:
            return list(self.learners)
        self.notes_.append(f"A head for each of {num_tasks} tasks was left out; up to {MOST_HEADS} are tried.")
        return [name for name in self.learners if name != "heads"]

    def _note_unlearned(self, ready: TaskTable) -> None:
        unlearned = sorted(set(np.unique(ready.encoded.owners).tolist()) - self._known)
        if unlearned:
            shown = ", ".join(f"'{name}'" for name in unlearned[:5]) + (", ..." if len(unlearned) > 5 else "")
            self.notes_.append(
                f"{len(unlearned)} tasks have no labelled train row ({shown}); they get what the others have in common."
            )

    def _measure(self, ready: TaskTable, fitted: Mapping[str, Learner]) -> dict[str, Any]:
        """Who serves, by the choose rows; and what everyone is worth, by the test rows."""
        chosen = self._held_out(ready, fitted, "choose", self.seed)
        gains = {name: chosen.compare(name, "pooled") for name in fitted if name != "pooled"}
        proven = {name: gain.gain for name, gain in gains.items() if gain.low > 0}
        served = max(proven, key=lambda name: proven[name]) if proven else "pooled"
        tested = self._held_out(ready, fitted, "test", self.seed + 1)
        owners = ready.encoded.owners[ready.labelled("test")]
        final = tested.compare(served, "pooled")
        return {
            "target": ready.task.name, "kind": ready.task.kind, "metric": ready.task.metric,
            "higher_is_better": ready.task.higher_is_better, "served_by": served,
            "gain_percent": _number(final.gain), "ci95": [_number(final.low), _number(final.high)],
            "rows": {part: len(ready.labelled(part)) for part in ("train", "stop", "choose", "test")},
            "learners": {name: {
                "test": _number(tested.score(name)[0]) if len(owners) else None,
                "choose_gain_percent": _number(gains[name].gain) if name in gains else None,
                "choose_ci95": [_number(gains[name].low), _number(gains[name].high)] if name in gains else None,
            } for name in fitted},
            "tasks": {
                name: _task_part(ready.task, tested, owners == name, served) for name in np.unique(owners).tolist()
            },
        }  # fmt: skip

    def _held_out(self, ready: TaskTable, fitted: Mapping[str, Learner], part: str, seed: int) -> HeldOut:
        rows = ready.labelled(part)
        encoded = ready.encoded.take(rows)
        estimates = {name: learner.estimate(encoded) for name, learner in fitted.items()}
        groups = ready.prepared.draws(rows)
        weights = draw_weights(len(rows), resamples=RESAMPLES, seed=seed, groups=groups)
        draws = None if groups is None else len(np.unique(groups))
        return HeldOut(ready.task, estimates, ready.targets(rows), weights, draws=draws)


def _task_part(task: Task, tested: HeldOut, rows: np.ndarray, served: str) -> dict[str, Any]:
    scores = {name: task.score(part[rows], tested.targets[rows])[0] for name, part in tested.estimates.items()}
    return {
        "rows": int(rows.sum()), "motet": _number(scores[served]), "pooled": _number(scores["pooled"]),
        "learners": {name: _number(score) for name, score in scores.items()},
    }  # fmt: skip


def _number(value: float) -> float | None:
    return round(float(value), 6) + 0.0 if np.isfinite(value) else None  # no minus zero
