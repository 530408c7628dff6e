"""One target's trees by CatBoost: a second kind of boosting, for blends."""

import importlib.util
import itertools
import json
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from motet._errors import MissingExtraError, require
from motet.tabular._boosting import BoostingRows, label_rows
from motet.tasks import Multiclass, Multilabel, Ordinal, Quantile, Task
from motet.train import Clock

ROUNDS = 2000
PATIENCE = 50
WITHOUT_STOP = 200  # rounds where no row says when to stop
ONE_HOT = 32  # levels up to which each is a feature: statistics of the targets by level cost four times the time
LOSSES = {
    "regression": "RMSE",
    "binary": "Logloss",
    "multiclass": "MultiClass",
    "ordinal": "MultiClass",
    "count": "Poisson",
    "multilabel": "Logloss",
}
FORMS = {"Logloss": "Probability", "MultiClass": "Probability", "Poisson": "Exponent"}


def is_installed() -> bool:
    """Whether CatBoost is here; nothing needs it."""
    return importlib.util.find_spec("catboost") is not None


@dataclass(frozen=True)
class Growth:
    """How one target's trees grow.

    Args:
        learning_rate: of a round; half of it takes twice the rounds and scores better.
        seed: of the trees.
        threads: processor threads.
    """

    learning_rate: float
    seed: int
    threads: int


class CatBoostTrees:
    """One task's trees: one CatBoost model, or one for each label or quantile.

    They are symmetric: all nodes of a level ask the same question. That is another bias than LightGBM's, so that the
    two err in different places and a blend is often better than either.

    Args:
        task: what is predicted.
        parts: each model in CatBoost's own binary form; one that could not be trained is a constant, a JSON list.
    """

    def __init__(self, task: Task, parts: list[bytes]) -> None:
        self.task = task
        self.parts = parts
        self._models = [_read(part) for part in parts]

    @classmethod
    def fit(
        cls, task: Task, train: BoostingRows, stop: BoostingRows, *, growth: Growth, clock: Clock
    ) -> tuple["CatBoostTrees", int]:
        """Trains until the stop rows' loss has not improved for 50 rounds, or the clock has run out.

        Returns:
            the model, and how many rows passed through its trees in training.
        """
        parts: list[bytes] = []
        rows = 0
        jobs = _jobs(task, train, stop)
        for number, (loss, fit_rows, stop_rows) in enumerate(jobs):
            own = clock.part(1.0 / (len(jobs) - number))
            part, rounds = _fit_one(task, loss, fit_rows, stop_rows, growth, own)
            parts.append(part)
            rows += rounds * len(fit_rows.targets)
        return cls(task, parts), rows

    def estimate(self, matrix: np.ndarray, *, threads: int = 1) -> np.ndarray:
        """Estimates for the rows of an encoded matrix (N, F)."""
        columns = [_answers(model, matrix, threads) for model in self._models]
        if isinstance(self.task, (Multiclass, Ordinal)):
            return columns[0]
        if isinstance(self.task, Quantile):
            return np.sort(np.concatenate(columns, axis=1), axis=1)
        return np.concatenate(columns, axis=1) if isinstance(self.task, Multilabel) else columns[0][:, 0]

    def to_bytes(self) -> bytes:
        """The models, compressed: how many bytes each has, in a line of JSON, and then they."""
        packed = [zlib.compress(part, level=9) for part in self.parts]
        return json.dumps([len(part) for part in packed]).encode() + b"\n" + b"".join(packed)

    @classmethod
    def from_bytes(cls, task: Task, data: bytes) -> "CatBoostTrees":
        """Reads what `to_bytes` wrote.

        Raises:
            MissingExtraError: CatBoost is not installed.
        """
        if not is_installed():
            message = (
                f"CatBoost's trees answer '{task.name}' in this run, and 'catboost' is not installed here. Run: "
                "pip install 'motet[catboost]'"
            )
            raise MissingExtraError(message)
        lengths, _, rest = data.partition(b"\n")
        ends = itertools.accumulate(json.loads(lengths), initial=0)
        return cls(task, [zlib.decompress(rest[start:end]) for start, end in itertools.pairwise(ends)])


def _jobs(task: Task, train: BoostingRows, stop: BoostingRows) -> list[tuple[str, BoostingRows, BoostingRows]]:
    """One training for each model that the task needs: its loss and rows."""
    if isinstance(task, Quantile):
        return [(f"Quantile:alpha={level}", train, stop) for level in task.levels]
    loss = LOSSES[task.kind]
    if isinstance(task, Multilabel):
        return [(loss, label_rows(train, place), label_rows(stop, place)) for place in range(task.num_outputs)]
    return [(loss, train, stop)]


def _fit_one(
    task: Task, loss: str, train: BoostingRows, stop: BoostingRows, growth: Growth, clock: Clock
) -> tuple[bytes, int]:
    if len(np.unique(train.targets)) < 2 or not _varies(train.matrix):
        return _constant(task, train.targets), 0
    settings: dict[str, Any] = {
        "loss_function": loss, "iterations": ROUNDS if len(stop.targets) else WITHOUT_STOP,
        "learning_rate": growth.learning_rate, "one_hot_max_size": ONE_HOT, "random_seed": growth.seed,
        "thread_count": growth.threads, "logging_level": "Silent", "allow_writing_files": False,
    }  # fmt: skip
    if loss == "MultiClass":
        settings["classes_count"] = len(getattr(task, "classes", ()))
    model = require("catboost", "catboost").CatBoost(settings)
    watch = _StopAt(clock)
    judged = {"eval_set": _pool(stop), "early_stopping_rounds": PATIENCE} if len(stop.targets) else {}
    model.fit(_pool(train), callbacks=[watch], **judged)
    return _written(model), watch.rounds


class _StopAt:
    """A callback of CatBoost that ends training when the clock has run out."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.rounds = clock, 0

    def after_iteration(self, _: object) -> bool:
        self.rounds += 1
        return self.clock.left > 0


def _pool(rows: BoostingRows) -> Any:
    return _features(rows.matrix, rows.num_categories, rows.targets)


def _features(matrix: np.ndarray, num_categories: int, targets: np.ndarray | None = None) -> Any:
    """The rows in CatBoost's form: numbers, and codes as text, which is how it takes categories."""
    catboost = require("catboost", "catboost")
    cut = matrix.shape[1] - num_categories
    numbers = np.ascontiguousarray(matrix[:, :cut], dtype=np.float32) if cut else None
    codes = matrix[:, cut:].astype(np.int64).astype("S").astype(object) if num_categories else None
    return catboost.Pool(catboost.FeaturesData(numbers, codes), targets)


def _answers(model: Any, matrix: np.ndarray, threads: int) -> np.ndarray:
    """(N, K) probabilities, or one column of values or of probabilities of yes."""
    if isinstance(model, list):
        return np.tile(np.array(model, dtype=np.float64), (len(matrix), 1))
    loss = model.get_all_params()["loss_function"]
    if not len(matrix):
        return np.zeros((0, len(model.classes_) if loss == "MultiClass" else 1))
    rows = _features(matrix, len(model.get_cat_feature_indices()))
    found = model.predict(rows, prediction_type=FORMS.get(loss, "RawFormulaVal"), thread_count=threads)
    return found[:, 1:] if loss == "Logloss" else found.reshape(len(matrix), -1)


def _constant(task: Task, targets: np.ndarray) -> bytes:
    """What is said where there is nothing to learn: the mean, or the share of each class."""
    if isinstance(task, (Multiclass, Ordinal)):
        counts = np.bincount(targets.astype(np.int64), minlength=len(task.classes or ()))
        return json.dumps((counts / max(1, counts.sum())).tolist()).encode()
    return json.dumps([float(targets.mean()) if len(targets) else 0.0]).encode()


def _varies(matrix: np.ndarray) -> bool:
    return any(len(np.unique(column)) > 1 for column in matrix.T)


def _written(model: Any) -> bytes:
    """CatBoost's own binary form, which it writes to files only."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.cbm"
        model.save_model(str(path), format="cbm")
        return path.read_bytes()


def _read(part: bytes) -> Any:
    if part.startswith(b"["):
        return json.loads(part)
    return require("catboost", "catboost").CatBoost().load_model(blob=part)
