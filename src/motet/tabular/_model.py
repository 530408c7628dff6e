"""`TabularModel`: one estimator for one table with several targets."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl
import torch

from motet import __version__
from motet._errors import MissingExtraError, RequestError, RunError
from motet.data import read_table
from motet.tabular._attributions import drawn, mean_attributions, shapley
from motet.tabular._candidates import Candidates, Plan, train_candidates
from motet.tabular._catboost import is_installed
from motet.tabular._distil import artefact_bytes, distil
from motet.tabular._document import request_document, run_document
from motet.tabular._effects import feature_effects
from motet.tabular._evaluate import evaluated
from motet.tabular._folds import train_folds
from motet.tabular._judge import Judge, Rules
from motet.tabular._labelled import Labelled
from motet.tabular._log import RunLog, read_log, write_log
from motet.tabular._notes import notes_on
from motet.tabular._outcome import measure, metrics_document, plain
from motet.tabular._prepared import Prepared, prepare
from motet.tabular._recorded import recorded
from motet.tabular._removal import check_effects
from motet.tabular._served import Served
from motet.tabular._settings import LARGEST_SEED, FitSettings, checked
from motet.tabular._slices import slice_scores
from motet.tabular._thresholds import Costs, read_above, thresholds
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

RESERVED = 0.1  # share of the time limit that preparing, choosing and writing need at the end
DISTILLING = 0.2  # share of the rest that the small network gets


class TabularModel:
    """Learns several targets of one table, and proves for each that sharing did not hurt it.

    Targets may be of different kinds and any label may be missing; no row is dropped for it. Besides the shared network
    each target's own network and its own LightGBM are trained on the same split; a target is served by the shared
    network only if a paired bootstrap test on held-out rows says that it is not worse than the best own model.

    Args:
        targets: tasks, or texts `NAME` or `NAME:KIND`; without a kind it is read off the column.
        time_limit: seconds for the whole fit, or None.
        seed: of the split, the weights and the order of rows.
        split: `random`, `group`, `time` or `given`; None means `given` with a split column and `random` without.
        split_column: the column that the split reads.
        roles: roles of columns that override what is inferred, such as {"zip": "category", "id": "ignored"}.
        settings: what few people set.

    Attributes:
        metrics_: the proof, as in `metrics.json`; after `fit` or `motet.load`.
        run_: what was decided, as in `run.json`.

    Raises:
        RequestError: what was asked for cannot be done as asked; nothing is lost.
        RunError: the work failed, for example for want of disk space.

    Cost: about twice a single network's training and one LightGBM a target, and once more a network's where what serves
        is distilled; or the time limit.

    Example:
        >>> model = TabularModel(["price:regression", "sold:binary"], time_limit=60)
        >>> model.targets
        ['price:regression', 'sold:binary']
    """

    def __init__(
        self,
        targets: Sequence[Task | str],
        *,
        time_limit: float | None = None,
        seed: int = 0,
        split: str | None = None,
        split_column: str | None = None,
        roles: Mapping[str, str] | None = None,
        settings: FitSettings | None = None,
    ) -> None:
        self.targets = targets
        self.time_limit = time_limit
        self.seed = seed
        self.split = split
        self.split_column = split_column
        self.roles = roles
        self.settings = settings

    def __repr__(self) -> str:
        shown = [
            f"{name}={value!r}" for name, value in vars(self).items() if not name.endswith("_") and value is not None
        ]
        return f"TabularModel({', '.join(shown)})"

    def fit(
        self,
        table: Any,
        *,
        out: str | Path | None = None,
        resume: bool = False,
        display: Display | None = None,
        on_prepared: Callable[[Prepared], None] | None = None,
    ) -> Self:
        """Trains, chooses and measures.

        Args:
            table: a path (Parquet, CSV, Arrow, NDJSON), a polars or pandas frame, a lazy scan, or an Arrow table.
            out: folder of the run, written as the work goes on; None keeps all in memory until `save`.
            resume: take up an unfinished run in `out`.
            display: takes the records of the log as they come.
            on_prepared: called once the schema, the split and the targets are decided, before training.
        """
        clock = Clock(None if self.time_limit is None else checked("time_limit", self.time_limit, low=1e-9, high=1e12))
        checked("seed", self.seed, low=0, high=LARGEST_SEED)
        settings = self.settings or FitSettings()
        frame = read_table(table)
        request = request_document(
            table, frame, self.targets, settings, seed=self.seed, time_limit=self.time_limit, split=self.split,
            split_column=self.split_column, roles=self.roles or {},
        )  # fmt: skip
        with recorded(out, request, clock, display, resume=resume) as (run, log):
            self._fit(frame, request, settings, clock, log, run, on_prepared)
        return self

    def _fit(
        self,
        frame: pl.DataFrame,
        request: dict[str, Any],
        settings: FitSettings,
        clock: Clock,
        log: RunLog,
        run: RunDirectory | None,
        on_prepared: Callable[[Prepared], None] | None,
    ) -> None:
        log({"event": "stage", "stage": "prepare", "text": f"Reading {frame.height:,} rows and {frame.width} columns"})
        split = self.split or ("given" if self.split_column else "random")
        prepared = prepare(
            frame, self.targets, split=split, split_column=self.split_column, roles=self.roles or {}, seed=self.seed
        )
        if on_prepared is not None:
            on_prepared(prepared)
        threads = settings.threads or torch.get_num_threads()
        plan = Plan(
            settings.balance,
            settings.sharing,
            settings.sharing_settings,
            settings.max_epochs,
            self.seed,
            threads,
            settings.torch_device(),
            None if run is None else run.work,
            catboost=settings.deploy == "best" and settings.catboost and is_installed(),
        )
        share = (1 - RESERVED) * (1 - DISTILLING if settings.deploy == "small" else 1.0)
        train = train_folds if settings.deploy == "best" else _train_once
        prepared, found = train(prepared, plan, clock=clock.part(share), emit=log)
        log({"event": "stage", "stage": "choose", "text": "Choosing and measuring on held-out rows"})
        self._choose(prepared, found, plan, clock, log)
        notes = [*found.notes, *notes_on(self.metrics_, prepared)]
        self.run_ = run_document(frame, prepared, request, notes, plan.device)
        self.log_ = log.unique()
        if run is not None:
            self._write(run)

    def _choose(self, prepared: Prepared, found: Candidates, plan: Plan, clock: Clock, log: RunLog) -> None:
        """Decides who serves, lets one small network take over where it may, and measures."""
        settings = self.settings or FitSettings()
        rules = Rules(settings.margin, settings.resamples, settings.level, self.seed, settings.deploy)
        judge = Judge(prepared, found, rules)
        judged = before = [judge.judge(task) for task in prepared.tasks]
        if settings.deploy == "small":
            left = Clock(None if clock.limit is None else max(0.0, clock.left - RESERVED * clock.limit))
            judged = distil(prepared, found, judge, before, plan, clock=left, emit=log)
        outcomes = [measure(judge, one) for one in judged]
        self.served_ = Served.from_candidates(prepared.encoder, outcomes, found)
        sizes = {"bytes": artefact_bytes(found, judged), "bytes_without_distilling": artefact_bytes(found, before)}
        self.metrics_ = metrics_document(prepared, found, outcomes, clock.elapsed) | {"artefact": sizes}

    def predict(
        self, table: Any, *, tasks: Sequence[str] | None = None, intervals: bool = False, costs: Costs | None = None
    ) -> pl.DataFrame:
        """What a person reads: a frame with a column for each target, one row for each row of the table.

        Args:
            table: anything that `fit` takes; it needs the feature columns only.
            tasks: the targets to predict; only what they need is computed.
            intervals: add `<target>_low` and `<target>_high` for targets that are numbers.
            costs: of a false yes and of a false no, by binary target: yes is said where it is the cheaper answer, above
                a probability of fp / (fp + fn); where none are given, above one half.
        """
        frame, served = read_table(table), self._model()
        cuts = thresholds({name: served.answers[name].task for name in served.names(tasks)}, costs or {})
        columns: dict[str, Any] = {}
        for name, estimates in served.estimate(frame, tasks).items():
            answer = served.answers[name]
            cut = cuts.get(name)
            columns[name] = _column(
                answer.task.read(estimates) if cut is None else read_above(answer.task, estimates, cut)
            )
            if intervals and answer.interval is not None:
                columns[f"{name}_low"], columns[f"{name}_high"] = answer.interval.bounds(estimates)
        return pl.DataFrame(columns)

    def predict_proba(self, table: Any, *, task: str) -> pl.DataFrame:
        """Calibrated probabilities of one target: a column for each class or label.

        Raises:
            RequestError: the target is a number and has no probabilities.
        """
        served = self._model()
        (name,) = served.names([task])
        labels = self.classes_.get(name)
        if labels is None:
            kind = served.answers[name].task.kind
            message = (
                f"'{task}' is a {kind} target and has no probabilities; use predict, with intervals=True for its range."
            )
            raise RequestError(message)
        estimates = served.estimate(read_table(table), [name])[name]
        if estimates.ndim == 1:
            estimates = np.stack([1.0 - estimates, estimates], axis=1)
        return pl.DataFrame({str(label): estimates[:, place] for place, label in enumerate(labels)})

    def estimate(self, table: Any, *, tasks: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Calibrated estimates as arrays: values (N,), probabilities (N,) of the positive class, or (N, C)."""
        return self._model().estimate(read_table(table), tasks)

    def evaluate(self, table: Any, *, tasks: Sequence[str] | None = None, seed: int = 0) -> dict[str, dict[str, Any]]:
        """Every metric of each target on a labelled table, how many rows had its label, and the main metric's interval.

        Raises:
            RequestError: no column of any asked-for target is in the table.
        """
        resamples = (self.settings or FitSettings()).resamples
        return plain(evaluated(self._model(), self._labelled(table, tasks, seed), resamples=resamples, seed=seed))

    def slices(
        self, table: Any, *, by: str, tasks: Sequence[str] | None = None, bins: int = 5, seed: int = 0
    ) -> pl.DataFrame:
        """The main metric of each target on each slice of a labelled table, and which slice is the worst.

        Args:
            table: rows that the model has not seen.
            by: the column whose levels, or bins of a number or date with more than 12 values, are the slices.
            tasks: the targets to score.
            bins: how many, of about the same number of rows.
            seed: of the resamples.

        Returns:
            a row for each target and slice: labelled rows, score, its 95% interval, `worse_by` than all other rows in
            the metric's unit, whether it is the target's `worst`, and whether that is `proven` and no luck.

        Raises:
            RequestError: no label column, or no such column to slice by.
        """
        checked("bins", bins, low=2, high=1000)
        labelled = self._labelled(table, tasks, seed)
        resamples = (self.settings or FitSettings()).resamples
        return slice_scores(self.served_, labelled, by, bins=bins, resamples=resamples, seed=seed)

    def effects(
        self, table: Any, *, tasks: Sequence[str] | None = None, repeats: int = 5, max_rows: int = 10_000, seed: int = 0
    ) -> pl.DataFrame:
        """What each feature is worth to each target: how much its metric drops when the feature is shuffled.

        Args:
            table: labelled rows that the model has not seen; on rows that it was trained on, features look worth more.
            tasks: the targets to explain.
            repeats: permutations a feature.
            max_rows: rows, drawn at random from a longer table.
            seed: of the draw, the permutations and the resamples.

        Returns:
            a row for each target and feature, the largest drop first: `drop` in the metric's unit, positive where the
            model needs the feature, its 95% interval, and its share of the target's positive drops. Features that say
            the same are one row, named `a + b`, with their `columns`.

        Cost: features × repeats + 1 predictions of the rows.
        """
        checked("repeats", repeats, low=1, high=1000)
        checked("max_rows", max_rows, low=1, high=1e9)
        labelled = self._labelled(table, tasks, seed).sample(max_rows, seed)
        return feature_effects(self.served_, labelled, repeats=repeats, seed=seed)

    def attributions(
        self, table: Any, *, tasks: Sequence[str] | None = None, max_rows: int = 500, seed: int = 0
    ) -> pl.DataFrame:
        """How far each feature moves each target's answers: mean absolute Shapley values.

        Choose it over `effects` where there are no labels, or where what the model does counts and not what it is
        worth: a feature that moves answers the wrong way is large here and has a negative drop there.

        Args:
            table: rows, with labels or without.
            tasks: the targets to explain.
            max_rows: rows, drawn at random from a longer table.
            seed: of the draw and of the permutations.

        Returns:
            a row for each target and feature, the largest first: `mean_shap`, its `share` of all, in the `unit` of the
            `estimate` (by sampled permutations) or of the trees' `score` (one LightGBM serves: exact). Features that
            say the same are one row, named `a + b`, with their `columns`.

        Cost: (features + 1) × 4 predictions of the rows.
        """
        checked("seed", seed, low=0, high=LARGEST_SEED)
        checked("max_rows", max_rows, low=2, high=1e9)
        served, frame = self._model(), drawn(read_table(table), max_rows, seed)
        return mean_attributions(shapley(served, frame, served.names(tasks), seed=seed))

    def check_effects(
        self, table: Any, effects: pl.DataFrame, *, max_rows: int = 100_000, seed: int = 0
    ) -> pl.DataFrame:
        """Whether the effects may be believed: quick trees are trained again without the best and the worst features.

        Args:
            table: labelled rows; half of them train, and 35% score.
            effects: what `effects` or `attributions` gave; its targets are checked.
            max_rows: rows, drawn at random from a longer table.
            seed: of the parts, the trees and the resamples.

        Returns:
            a row for each target: the score with all features, without the most and without the least important
            quarter, the difference of the two with its 95% interval, and a verdict: `supported`, `not supported`,
            `contradicted`, `too few rows` or `too few features`. All but the first mean: do not believe them.

        Cost: three trainings of LightGBM a target.
        """
        checked("max_rows", max_rows, low=1, high=1e9)
        names = effects["target"].unique(maintain_order=True).to_list()
        labelled = self._labelled(table, names, seed).sample(max_rows, seed)
        threads = (self.settings or FitSettings()).threads or torch.get_num_threads()
        return check_effects(self.served_.encoder, labelled, effects, seed=seed, threads=threads)

    def _labelled(self, table: Any, tasks: Sequence[str] | None, seed: int) -> Labelled:
        checked("seed", seed, low=0, high=LARGEST_SEED)
        return Labelled.read(self._model(), read_table(table), tasks, self.run_.get("split", {}))

    def score(self, table: Any) -> dict[str, float | None]:
        """The main metric of each target on a labelled table."""
        return {name: found["metrics"].get(found["metric"]) for name, found in self.evaluate(table).items()}

    @property
    def classes_(self) -> dict[str, tuple[Any, ...]]:
        """The classes or labels of each target that has them, in the order of its probabilities."""
        found = {}
        for name, answer in self._model().answers.items():
            labels = getattr(answer.task, "labels", None) or getattr(answer.task, "classes", None)
            if labels:
                found[name] = tuple(labels)
        return found

    def task(self, name: str) -> Task:
        """The fitted task called `name`."""
        (name,) = self._model().names([name])
        return self._model().answers[name].task

    def save(self, path: str | Path) -> Path:
        """Writes the run directory; nothing that is there is ever overwritten.

        Raises:
            RequestError: the folder is not empty, or the model is not fitted.
        """
        self._model()
        run = RunDirectory.create(path, {"saved": True})
        self._write(run)
        return run.path

    def _write(self, run: RunDirectory) -> None:
        document, tensors = self.served_.to_files()
        write_log(run.path / "log.jsonl", self.log_)
        write_tensors(run.path / "model.safetensors", tensors, {"format": str(FORMAT), "motet": __version__})
        write_json(run.path / "metrics.json", self.metrics_)
        run.finish({**self.run_, **document})

    def _model(self) -> Served:
        if not hasattr(self, "served_"):
            message = "This TabularModel is not fitted yet. Call fit(table) first, or motet.load(path) for a saved one."
            raise RequestError(message)
        return self.served_


def load(path: str | Path) -> TabularModel:
    """Loads a finished run.

    Raises:
        RequestError: not a run directory, or one with a task column.
        RunError: the run is unfinished or damaged.
    """
    run, document = RunDirectory.open(path)
    if document.get("form", "targets") != "targets":
        message = (
            f"The run in '{path}' has a task column; one without was expected here. Load it with "
            "motet.tabular.TaskColumnModel.load; motet predict, evaluate, effects and report read it as it is."
        )
        raise RequestError(message)
    tensors, _ = read_tensors(run.path / "model.safetensors")
    try:
        model = TabularModel([data["name"] for data in document["tasks"]], seed=document.get("seed", 0))
        model.served_ = Served.from_files(document, tensors)
    except MissingExtraError:
        raise
    except Exception as error:  # whatever a spoiled file makes torch, zlib or LightGBM say
        message = (
            f"The run in '{path}' is damaged: its run.json and model.safetensors do not make a model "
            f"({type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else error!r}). "
            "Restore the folder from a copy, or fit again."
        )
        raise RunError(message) from error
    model.run_ = document
    model.metrics_ = read_json(run.path / "metrics.json")
    log = run.path / "log.jsonl"
    model.log_ = read_log(log) if log.is_file() else []
    return model


def _train_once(prepared: Prepared, plan: Plan, *, clock: Clock, emit: RunLog) -> tuple[Prepared, Candidates]:
    return prepared, train_candidates(prepared, plan, clock=clock, emit=emit)


def _column(values: np.ndarray) -> pl.Series:
    return pl.Series(values.tolist()) if values.dtype == object else pl.Series(values)
