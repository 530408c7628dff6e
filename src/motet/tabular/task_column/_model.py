"""`TaskColumnModel`: one target, and a column that says which task each row belongs to."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl
import torch

from motet import __version__
from motet._errors import MissingExtraError, RequestError, RunError, suggest
from motet.data import read_table
from motet.tabular._attributions import Shapley, drawn, mean_attributions, shapley
from motet.tabular._document import request_document, run_document
from motet.tabular._effects import feature_effects
from motet.tabular._evaluate import evaluated
from motet.tabular._labelled import Labelled
from motet.tabular._log import RunLog, read_log, write_log
from motet.tabular._outcome import plain
from motet.tabular._prepared import Prepared
from motet.tabular._recorded import recorded
from motet.tabular._removal import check_effects
from motet.tabular._settings import LARGEST_SEED, FitSettings, checked
from motet.tabular._slices import scores_of_slices, slice_scores
from motet.tabular._thresholds import Costs, read_above, thresholds
from motet.tabular.boosting import TaskReading
from motet.tabular.task_column._apart import TaskApart
from motet.tabular.task_column._learners import LEARNERS, Learner, Robust
from motet.tabular.task_column._measure import Choice, Rules, costs_document
from motet.tabular.task_column._notes import fit_notes, new_task_note
from motet.tabular.task_column._old import OLD, read_old
from motet.tabular.task_column._served import ServedTasks
from motet.tabular.task_column._table import TaskTable, owners_of, read_task_table
from motet.tabular.task_column._training import Training
from motet.tasks import Task
from motet.train import (
    FORMAT,
    Clock,
    Display,
    RunDirectory,
    read_json,
    read_tensors,
    write_json,
    write_tensors,
)

FORM = "task_column"  # under "form" in run.json and metrics.json


class TaskColumnModel:
    """Learns one target of a table whose rows each belong to one task: a patient, a school, a shop, a field.

    Choose it where a column names the task and every row has one label; where every row has several labels, use
    `TabularModel`. Four learners of all tasks are trained on the same split: LightGBM on all rows with the task as a
    category (`pooled`), R-MTGB (`robust`), a network with the task as a category (`embedding`) and one with a head for
    each task (`heads`), and each task's own LightGBM. `pooled` stands for all tasks unless another is proven better on
    the choose rows by a paired bootstrap. It serves a task only if the same test finds it not worse than the task's own
    model, on the task's rows alone, or where these do not settle it, on those of all tasks together. Where only the
    mean of the two passes, that serves, and else the own model. A row of a task never seen gets what the tasks have in
    common, and `notes_` says so.

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
        margin: percent by which the learner of all tasks may be worse than a task's own model and still serve it.
        deploy: `small` answers each task by one model; `best` also by the mean of its own and the learner of all tasks,
            which keeps both.

    Attributes:
        metrics_: the proof, over all tasks and by task, as in `metrics.json`; after `fit`.
        run_: what was decided, as in `run.json`.
        served_by_: the learner of all tasks that answers.
        notes_: what a reader should know of the last call.

    Raises:
        RequestError: what was asked for cannot be done as asked.
        RunError: the work failed, for example for want of disk space.

    Cost: about eight LightGBM models on all rows, one small one a task and two networks, or the time limit. Above 200
        tasks `heads` is left out.

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
        margin: float = 0.5,
        deploy: str = "best",
    ) -> None:
        for name in learners:
            if name not in LEARNERS:
                message = f"There is no learner '{name}'.{suggest(name, LEARNERS)} Choose of {', '.join(LEARNERS)}."
                raise RequestError(message)
        self.target, self.task_column = target, task_column
        self.learners = tuple(name for name in LEARNERS if name in {"pooled", *learners})
        self.time_limit, self.seed = time_limit, seed
        self.split, self.split_column, self.roles = split, split_column, roles
        self.max_epochs, self.margin, self.deploy = max_epochs, margin, deploy

    def fit(
        self,
        table: Any,
        *,
        out: str | Path | None = None,
        resume: bool = False,
        display: Display | None = None,
        on_prepared: Callable[[Prepared], None] | None = None,
    ) -> Self:
        """Trains the learners, chooses on the choose rows and measures on the test rows.

        Args:
            table: a path (Parquet, CSV, Arrow, NDJSON), a polars or pandas frame, a lazy scan, or an Arrow table.
            out: folder of the run, written as the work goes on; None keeps all in memory until `save`.
            resume: take up an unfinished run in `out`.
            display: takes the records of the log as they come.
            on_prepared: called once the schema, the split and the target are decided, before training.
        """
        clock = Clock(None if self.time_limit is None else checked("time_limit", self.time_limit, low=1e-9, high=1e12))
        checked("seed", self.seed, low=0, high=LARGEST_SEED)
        settings = FitSettings(max_epochs=self.max_epochs, margin=self.margin, deploy=self.deploy, catboost=False)
        frame = read_table(table)
        request = request_document(
            table, frame, [self.target], settings, seed=self.seed, time_limit=self.time_limit, split=self.split,
            split_column=self.split_column, roles=self.roles or {}, task_column=self.task_column,
            learners=self.learners,
        )  # fmt: skip
        with recorded(out, request, clock, display, resume=resume) as (run, log):
            self._fit(frame, request, clock, log, run, on_prepared)
        return self

    def _fit(
        self, frame: pl.DataFrame, request: dict[str, Any], clock: Clock, log: RunLog, run: RunDirectory | None,
        on_prepared: Callable[[Prepared], None] | None,
    ) -> None:  # fmt: skip
        log({"event": "stage", "stage": "prepare", "text": f"Reading {frame.height:,} rows and {frame.width} columns"})
        ready = read_task_table(
            frame, self.target, self.task_column, split=self.split, split_column=self.split_column,
            roles=self.roles or {}, seed=self.seed,
        )  # fmt: skip
        if on_prepared is not None:
            on_prepared(ready.prepared)
        work = None if run is None else run.work
        training = Training(ready, self.learners, seed=self.seed, max_epochs=self.max_epochs, work=work, log=log)
        fitted = training.fit(clock)
        log({"event": "stage", "stage": "choose", "text": "Choosing and measuring on held-out rows"})
        rules = Rules(margin=self.margin, seed=self.seed, blends=self.deploy == "best")
        measured = Choice(ready, fitted, rules).measure()
        self.served_ = measured.served
        self.metrics_ = measured.metrics | costs_document(training.costs, clock.elapsed)
        self.readings_ = _readings(fitted)
        self.notes_ = [*training.notes, *fit_notes(ready, self.metrics_)]
        self.run_ = self._document(frame, ready, request)
        self.log_ = log.unique()
        if run is not None:
            self._write(run)

    def _document(self, frame: pl.DataFrame, ready: TaskTable, request: Mapping[str, Any]) -> dict[str, Any]:
        document = run_document(frame, ready.prepared, request, self.notes_, torch.device("cpu"))
        if self.split_column is None and self.split is None:
            document["split"]["how"] = "by task"  # each task has its share of every part
        return document | {"form": FORM, "readings": [asdict(part) for part in self.readings_]}

    @property
    def task_(self) -> Task:
        """The fitted target."""
        return self._served().task

    @property
    def served_by_(self) -> str:
        """The learner of all tasks that answers."""
        return self._served().shared.name

    @property
    def tasks_(self) -> list[str]:
        """The names of the tasks that were learned."""
        return sorted(self._served().known)

    def predict(
        self, table: Any, *, intervals: bool = False, sources: bool = False, costs: Costs | None = None
    ) -> pl.DataFrame:
        """What a person reads: a frame with the target's column, one row for each row of the table.

        Args:
            table: anything that `fit` takes; it needs the features and the task column.
            intervals: add `<target>_low` and `<target>_high` for a target that is a number.
            sources: add `<target>_served_by`: `shared`, `own_lightgbm`, their `mean`, or `common`, what the learned
                tasks have in common, for a task that was not learned.
            costs: of a false yes and of a false no, for a binary target.
        """
        served, frame = self._served(), read_table(table)
        cuts = thresholds({self.task_.name: self.task_}, costs or {})
        name, estimates = self.task_.name, self._estimate(frame)
        cut = cuts.get(name)
        values = self.task_.read(estimates) if cut is None else read_above(self.task_, estimates, cut)
        columns: dict[str, Any] = {name: values.tolist() if values.dtype == object else values}
        owners = owners_of(frame, self.task_column)
        bounds = served.bounds(estimates, owners) if intervals else None
        if bounds is not None:
            columns[f"{name}_low"], columns[f"{name}_high"] = bounds
        if sources:
            columns[f"{name}_served_by"] = served.sources(owners)
        return pl.DataFrame(columns)

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

    def evaluate(self, table: Any, *, tasks: Sequence[str] | None = None, seed: int = 0) -> dict[str, dict[str, Any]]:
        """Every metric on a labelled table, how many rows had a label, and the main metric's interval.

        Args:
            table: rows that the model has not seen.
            tasks: the target, for all rows together, and names of tasks, for theirs alone; None for the target.
            seed: of the resamples.

        Raises:
            RequestError: no label column, or no such task.
        """
        found: dict[str, dict[str, Any]] = {}
        for served, labelled in self._views(table, tasks, seed):
            found |= plain(evaluated(served, labelled, resamples=Rules().resamples, seed=seed))
        return found

    def slices(
        self, table: Any, *, by: str, tasks: Sequence[str] | None = None, bins: int = 5, seed: int = 0
    ) -> pl.DataFrame:
        """The main metric on each slice of a labelled table; by the task column, on each task.

        Args:
            table: rows that the model has not seen.
            by: the column whose levels, or bins of a number or date with more than 12 values, are the slices.
            tasks: as in `evaluate`.
            bins: how many, of about the same number of rows.
            seed: of the resamples.

        Returns:
            As `TabularModel.slices`.
        """
        checked("bins", bins, low=2, high=1000)
        parts = []
        for served, labelled in self._views(table, tasks, seed):
            if by == self.task_column:
                names, codes = np.unique(owners_of(labelled.frame, by), return_inverse=True)
                found = scores_of_slices(
                    served, labelled, codes, names.tolist(), resamples=Rules().resamples, seed=seed
                )
            else:
                found = slice_scores(served, labelled, by, bins=bins, resamples=Rules().resamples, seed=seed)
            parts.append(found)
        return pl.concat(parts)

    def effects(
        self, table: Any, *, tasks: Sequence[str] | None = None, repeats: int = 5, max_rows: int = 10_000, seed: int = 0
    ) -> pl.DataFrame:
        """What each feature is worth, over all tasks, with the task column as one of the features, or to some of them.

        Args:
            table: labelled rows that the model has not seen.
            tasks: as in `evaluate`.
            repeats: permutations a feature.
            max_rows: rows, drawn at random from a longer table.
            seed: of the draw, the permutations and the resamples.

        Returns:
            As `TabularModel.effects`, with the target or the task under `target`. A task's features are shuffled among
            its own rows, where the task column says nothing and is left out.
        """
        checked("repeats", repeats, low=1, high=1000)
        checked("max_rows", max_rows, low=1, high=1e9)
        parts = [
            feature_effects(served, labelled.sample(max_rows, seed), repeats=repeats, seed=seed)
            for served, labelled in self._views(table, tasks, seed)
        ]
        says_nothing = (pl.col("target") != self.task_.name) & (pl.col("feature") == self.task_column)
        return pl.concat(parts).filter(~says_nothing)

    def attributions(
        self, table: Any, *, tasks: Sequence[str] | None = None, max_rows: int = 500, seed: int = 0
    ) -> pl.DataFrame:
        """How far each feature, the task column among them, moves the answers.

        Args:
            table: rows, with labels or without.
            tasks: the target, for all rows together, and names of tasks, for theirs alone; None for the target.
            max_rows: rows, drawn at random from a longer table.
            seed: of the draw and of the permutations.

        Returns:
            As `TabularModel.attributions`, with the target or the task under `target`.

        Raises:
            RequestError: a task that no row belongs to.
        """
        checked("seed", seed, low=0, high=LARGEST_SEED)
        checked("max_rows", max_rows, low=2, high=1e9)
        served, frame = self._served(), read_table(table)
        found: dict[str, Shapley] = {}
        target, owners = served.task.name, owners_of(frame, self.task_column)
        for name in dict.fromkeys(tasks or [target]):
            rows = frame if name == target else frame.filter(pl.Series(owners == name))
            if not rows.height:
                message = f"No row of the table belongs to task '{name}'.{suggest(name, np.unique(owners).tolist())} "
                raise RequestError(message + "Name one that is there.")
            found[name] = shapley(served, drawn(rows, max_rows, seed), [target], seed=seed)[target]
        return mean_attributions(found)

    def check_effects(
        self, table: Any, effects: pl.DataFrame, *, max_rows: int = 100_000, seed: int = 0
    ) -> pl.DataFrame:
        """Whether the effects may be believed, as `TabularModel.check_effects` says it."""
        checked("max_rows", max_rows, low=1, high=1e9)
        names, threads = effects["target"].unique(maintain_order=True).to_list(), torch.get_num_threads()
        parts = [
            check_effects(served.encoder, labelled.sample(max_rows, seed), effects, seed=seed, threads=threads)
            for served, labelled in self._views(table, names, seed)
        ]
        return pl.concat(parts)

    def outliers(self) -> list[TaskReading]:
        """The tasks that stand apart from the others, where splitting them off is proven better on the choose rows.

        `readings_` holds what robust boosting says of every task, proven or not.
        """
        interval = self.metrics_["learners"].get("robust", {}).get("choose_ci95") or [None]
        proven = interval[0] is not None and interval[0] > 0
        return [reading for reading in self.readings_ if reading.outlier and proven]

    def save(self, path: str | Path) -> Path:
        """Writes the run directory; nothing that is there is ever overwritten.

        Raises:
            RequestError: the folder is not empty, or the model is not fitted.
        """
        self._served()
        run = RunDirectory.create(path, {"saved": True})
        self._write(run)
        return run.path

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads a finished run.

        Raises:
            RequestError: not a run directory, or one without a task column.
            RunError: the run is unfinished or damaged.
        """
        if (Path(path) / OLD).is_file():
            return cls._of(*read_old(Path(path)))
        run, document = RunDirectory.open(path)
        if document.get("form") != FORM:
            message = f"The run in '{path}' has no task column; one that has was expected. Load it with motet.load."
            raise RequestError(message)
        tensors, _ = read_tensors(run.path / "model.safetensors")
        log = run.path / "log.jsonl"
        try:
            served = ServedTasks.from_files(document, tensors)
            model = cls._of(served, document, read_json(run.path / "metrics.json"))
            model.log_ = read_log(log) if log.is_file() else []
        except (MissingExtraError, RunError):
            raise
        except Exception as error:  # whatever a spoiled file makes torch, zlib or LightGBM say
            message = (
                f"The run in '{path}' is damaged: its run.json and model.safetensors do not make a model "
                f"({type(error).__name__}: {error}). Restore the folder from a copy, or fit again."
            )
            raise RunError(message) from error
        return model

    @classmethod
    def _of(cls, served: ServedTasks, document: dict[str, Any], metrics: dict[str, Any]) -> Self:
        model = cls(served.task.name, task_column=served.column, seed=document.get("seed", 0))
        model.served_, model.run_, model.metrics_ = served, document, metrics
        model.notes_, model.log_ = document["notes"], list[dict[str, Any]]()
        model.readings_ = [TaskReading(**part) for part in document["readings"]]
        return model

    def _write(self, run: RunDirectory) -> None:
        document, tensors = self._served().to_files()
        write_log(run.path / "log.jsonl", self.log_)
        write_tensors(run.path / "model.safetensors", tensors, {"format": str(FORMAT), "motet": __version__})
        write_json(run.path / "metrics.json", self.metrics_)
        run.finish({**self.run_, **document})

    def _served(self) -> ServedTasks:
        if not hasattr(self, "served_"):
            message = (
                "This model is not fitted, so it has nothing to predict with. Call fit first, or load a saved one."
            )
            raise RequestError(message)
        return self.served_

    def _estimate(self, frame: pl.DataFrame) -> np.ndarray:
        served = self._served()
        (estimates,) = served.estimate(frame).values()
        note = new_task_note(owners_of(frame, self.task_column), served.known)
        self.notes_ = [note] if note else []
        return estimates

    def _views(
        self, table: Any, tasks: Sequence[str] | None, seed: int
    ) -> list[tuple[ServedTasks | TaskApart, Labelled]]:
        """What is asked about: the target over all rows, and the named tasks on theirs."""
        checked("seed", seed, low=0, high=LARGEST_SEED)
        served, target = self._served(), self._served().task.name
        labelled = Labelled.read(served, read_table(table), None, self.run_.get("split", {}))
        named = tuple(dict.fromkeys(name for name in tasks or () if name != target))
        views: list[tuple[ServedTasks | TaskApart, Labelled]] = []
        if tasks is None or target in tasks:
            views.append((served, labelled))
        apart = [TaskApart(served, name) for name in named]
        return [*views, *((one, one.labelled(labelled)) for one in apart)]


def _readings(fitted: Mapping[str, Learner]) -> list[TaskReading]:
    robust = fitted.get("robust", fitted["pooled"])
    return robust.model.readings if isinstance(robust, Robust) else []
