"""Each target's outside reference: gradient-boosted trees by LightGBM."""

import json
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from motet._errors import require
from motet.tabular._tree_columns import TreeColumns
from motet.tasks import Multiclass, Multilabel, Ordinal, Quantile, Task
from motet.train import Clock

ROUNDS = 2000
PATIENCE = 50
SMALL = 20_000
SMALLEST = 5_000
OBJECTIVES = {
    "regression": "regression",
    "binary": "binary",
    "multiclass": "multiclass",
    "ordinal": "multiclass",
    "count": "poisson",
    "quantile": "quantile",
    "multilabel": "binary",
}


@dataclass(frozen=True)
class TreeSettings:
    """How one target's trees grow.

    Args:
        name: what the journal calls them.
        num_leaves: of a tree at most.
        learning_rate: of a round; None suits the rows.
        columns: share of the columns that a tree may use.
        rows: share of the rows that a tree learns from.
    """

    name: str
    num_leaves: int = 63
    learning_rate: float | None = None
    columns: float = 1.0
    rows: float = 1.0

    def to_lightgbm(self, num_rows: int) -> dict[str, Any]:
        """LightGBM's names for them."""
        # Few rows make early stopping a matter of luck; smaller steps make it less so, and cost little there.
        rate = self.learning_rate or (0.1 if num_rows >= SMALL else 0.05)
        found = {"num_leaves": self.num_leaves, "learning_rate": rate, "feature_fraction": self.columns}
        return found if self.rows == 1.0 else found | {"bagging_fraction": self.rows, "bagging_freq": 1}


WIDE = TreeSettings("wide")
MEDIUM = TreeSettings("medium", num_leaves=15)
NARROW = TreeSettings("narrow", num_leaves=8, columns=0.3, rows=0.7)


def ways_for(num_rows: int) -> tuple[TreeSettings, ...]:
    """The ways in which trees are worth growing on so many rows; small ones cost a fifth of large ones."""
    if num_rows >= SMALL:
        return (WIDE,)
    return (WIDE if num_rows >= SMALLEST else MEDIUM, NARROW)


@dataclass(frozen=True)
class BoostingRows:
    """The rows for one task's trees, all with a label.

    Args:
        matrix: (N, F) float32, the encoded numbers and then the category codes.
        targets: (N,) or (N, L) as the task encodes them.
        num_categories: how many of the last columns are categories.
    """

    matrix: np.ndarray
    targets: np.ndarray
    num_categories: int


class Boosting:
    """One task's trees: one LightGBM model, or one for each label or quantile.

    Args:
        task: what is predicted.
        texts: LightGBM's own text form of each model; a model that could not be trained is a constant in text form.
    """

    def __init__(self, task: Task, texts: list[str]) -> None:
        self.task = task
        self.texts = texts
        self._packed: bytes | None = None
        lightgbm = require("lightgbm", "tables")
        self._models = [float(text) if _is_number(text) else lightgbm.Booster(model_str=text) for text in texts]

    @classmethod
    def fit(
        cls,
        task: Task,
        train: BoostingRows,
        stop: BoostingRows,
        *,
        seed: int,
        clock: Clock,
        threads: int,
        settings: TreeSettings = WIDE,
    ) -> tuple["Boosting", int]:
        """Trains until the stop rows' loss has not improved for 50 rounds, or the clock has run out.

        Returns:
            the model, and how many rows passed through its trees in training.
        """
        texts: list[str] = []
        rows = 0
        parts = _parts(task, train, stop)
        for number, (params, fit_rows, stop_rows) in enumerate(parts):
            own_clock = clock.part(1.0 / (len(parts) - number))
            params |= settings.to_lightgbm(len(fit_rows.targets)) | {"seed": seed, "num_threads": threads}
            text, rounds = _fit_one(params, fit_rows, stop_rows, own_clock)
            texts.append(text)
            rows += rounds * len(fit_rows.targets)
        return cls(task, texts), rows

    def estimate(self, matrix: np.ndarray, *, threads: int = 1) -> np.ndarray:
        """Estimates for the rows of an encoded matrix (N, F)."""
        columns = [
            np.full(len(matrix), model) if isinstance(model, float) else model.predict(matrix, num_threads=threads)
            for model in self._models
        ]
        if isinstance(self.task, Quantile):
            return np.sort(np.stack(columns, axis=1), axis=1)
        if isinstance(self.task, Multilabel):
            return np.stack(columns, axis=1)
        return columns[0]

    def scores(self, matrix: np.ndarray, *, threads: int = 1) -> np.ndarray:
        """What the trees add up to before the link, (N, K): a number a class or label, else one."""
        columns = [
            np.full((len(matrix), 1), model)
            if isinstance(model, float)
            else np.asarray(model.predict(matrix, raw_score=True, num_threads=threads)).reshape(len(matrix), -1)
            for model in self._models
        ]
        return np.concatenate(columns, axis=1)

    def contributions(self, matrix: np.ndarray, *, threads: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """TreeSHAP of each column (N, F, K) in the trees' scores, and what is said without any column (N, K).

        How often each side of a split is taken is counted on these rows, with one more in every leaf: the trees are
        kept without the counts of their training.
        """
        size = matrix.shape
        parts: list[np.ndarray] = []
        for model, columns in zip(self._models, self.columns(), strict=True):
            if isinstance(columns, float):
                parts.append(np.concatenate([np.zeros((size[0], 1, size[1])), np.full((size[0], 1, 1), model)], axis=2))
            else:
                counted = _counted(columns, model, matrix)
                found = counted.predict(matrix, pred_contrib=True, num_threads=threads)
                parts.append(np.asarray(found).reshape(size[0], -1, size[1] + 1))
        found_NKF = np.concatenate(parts, axis=1)
        return found_NKF[:, :, :-1].transpose(0, 2, 1), found_NKF[:, :, -1]

    def to_bytes(self) -> bytes:
        """The models, compressed: how many bytes each has, in a line of JSON, and then they."""
        if self._packed is None:  # seconds for large models, and more than one asks
            parts = [_pack(model) for model in self.columns()]
            self._packed = json.dumps([len(part) for part in parts]).encode() + b"\n" + b"".join(parts)
        return self._packed

    @classmethod
    def from_bytes(cls, task: Task, data: bytes) -> "Boosting":
        """Reads what `to_bytes` wrote."""
        if not data.startswith(b"["):  # runs from before trees were kept in columns hold their whole texts
            return cls(task, zlib.decompress(data).decode().split("\x00"))
        lengths, _, rest = data.partition(b"\n")
        texts = []
        for length in json.loads(lengths):
            texts.append(_unpack(rest[:length]))
            rest = rest[length:]
        return cls(task, texts)

    def columns(self) -> list[TreeColumns | float]:
        """Each model's trees, or the constant that it is."""
        return [float(text) if _is_number(text) else TreeColumns.from_text(text) for text in self.texts]


def _parts(
    task: Task, train: BoostingRows, stop: BoostingRows
) -> list[tuple[dict[str, Any], BoostingRows, BoostingRows]]:
    """One training for each model that the task needs: its parameters and rows."""
    params: dict[str, Any] = {"objective": OBJECTIVES[task.kind]}
    if isinstance(task, Quantile):
        return [(params | {"alpha": level}, train, stop) for level in task.levels]
    if isinstance(task, Multilabel):
        return [(params, label_rows(train, number), label_rows(stop, number)) for number in range(task.num_outputs)]
    if isinstance(task, (Multiclass, Ordinal)):
        params["num_class"] = len(task.classes or ())
    return [(params, train, stop)]


def label_rows(rows: BoostingRows, number: int) -> BoostingRows:
    """The rows that have the label at a place, with that label alone."""
    known = np.isfinite(rows.targets[:, number])
    return BoostingRows(rows.matrix[known], rows.targets[known, number], rows.num_categories)


def _fit_one(params: dict[str, Any], train: BoostingRows, stop: BoostingRows, clock: Clock) -> tuple[str, int]:
    if len(np.unique(train.targets)) < 2:
        return repr(float(train.targets.mean()) if len(train.targets) else 0.0), 0
    lightgbm = require("lightgbm", "tables")
    fixed = {
        "verbosity": -1,
        "deterministic": True,
        "force_row_wise": True,
    }
    width = train.matrix.shape[1]
    data = lightgbm.Dataset(
        train.matrix,
        label=train.targets,
        categorical_feature=list(range(width - train.num_categories, width)),
        params={"verbosity": -1, "max_bin": 255},
    )
    callbacks: list[Any] = [_StopAt(clock, lightgbm.callback.EarlyStopException)]
    valid: list[Any] = []
    if len(stop.targets):
        valid = [data.create_valid(stop.matrix, label=stop.targets, params={"verbosity": -1, "max_bin": 255})]
        callbacks.append(lightgbm.early_stopping(PATIENCE, verbose=False))
    rounds = ROUNDS if valid else 100
    model = lightgbm.train(fixed | params, data, rounds, valid_sets=valid, callbacks=callbacks)
    text = model.model_to_string(num_iteration=model.best_iteration or -1)
    # All that follows, the guard first, sees the trees as they are kept.
    return TreeColumns.from_text(text).to_text(), model.current_iteration()


def _counted(columns: TreeColumns, model: Any, matrix: np.ndarray) -> Any:
    """The same trees with the rows of each leaf counted."""
    leaves = np.asarray(model.predict(matrix, pred_leaf=True)).reshape(len(matrix), -1)
    sizes = columns.columns["num_leaves"].tolist()
    counts = [1 + np.bincount(leaves[:, place].astype(np.int64), minlength=size) for place, size in enumerate(sizes)]
    return require("lightgbm", "tables").Booster(model_str=columns.to_text(counts))


@dataclass(frozen=True, eq=False)  # LightGBM keeps its callbacks in a set
class _StopAt:
    """A callback of LightGBM that ends training when the clock has run out."""

    clock: Clock
    stop: type[Exception]
    order: int = 40  # after LightGBM's own early stopping

    def __call__(self, env: Any) -> None:
        if self.clock.left <= 0:
            raise self.stop(env.iteration, env.evaluation_result_list or [])


def _pack(model: TreeColumns | float) -> bytes:
    return repr(model).encode() if isinstance(model, float) else model.to_bytes()


def _unpack(data: bytes) -> str:
    return TreeColumns.from_bytes(data).to_text() if data.startswith(b"x") else data.decode()  # zlib's first byte


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
