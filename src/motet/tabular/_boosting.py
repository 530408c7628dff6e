"""Each target's outside reference: gradient-boosted trees by LightGBM."""

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from motet._errors import require
from motet.tasks import Multiclass, Multilabel, Ordinal, Quantile, Task
from motet.train import Clock

ROUNDS = 2000
PATIENCE = 50
SMALL = 20_000
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
        cls, task: Task, train: BoostingRows, stop: BoostingRows, *, seed: int, clock: Clock, threads: int
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
            text, rounds = _fit_one(params | {"seed": seed, "num_threads": threads}, fit_rows, stop_rows, own_clock)
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

    def to_bytes(self) -> bytes:
        """The models, compressed."""
        if self._packed is None:  # seconds for large models, and more than one asks
            self._packed = zlib.compress("\x00".join(self.texts).encode(), level=6)
        return self._packed

    @classmethod
    def from_bytes(cls, task: Task, data: bytes) -> "Boosting":
        """Reads what `to_bytes` wrote."""
        return cls(task, zlib.decompress(data).decode().split("\x00"))


def _parts(
    task: Task, train: BoostingRows, stop: BoostingRows
) -> list[tuple[dict[str, Any], BoostingRows, BoostingRows]]:
    """One training for each model that the task needs: its parameters and rows."""
    params: dict[str, Any] = {"objective": OBJECTIVES[task.kind]}
    if isinstance(task, Quantile):
        return [(params | {"alpha": level}, train, stop) for level in task.levels]
    if isinstance(task, Multilabel):
        return [(params, _label(train, number), _label(stop, number)) for number in range(task.num_outputs)]
    if isinstance(task, (Multiclass, Ordinal)):
        params["num_class"] = len(task.classes or ())
    return [(params, train, stop)]


def _label(rows: BoostingRows, number: int) -> BoostingRows:
    known = np.isfinite(rows.targets[:, number])
    return BoostingRows(rows.matrix[known], rows.targets[known, number], rows.num_categories)


def _fit_one(params: dict[str, Any], train: BoostingRows, stop: BoostingRows, clock: Clock) -> tuple[str, int]:
    if len(np.unique(train.targets)) < 2:
        return repr(float(train.targets.mean()) if len(train.targets) else 0.0), 0
    lightgbm = require("lightgbm", "tables")
    fixed = {
        # Few rows make early stopping a matter of luck; smaller steps make it less so, and cost little there.
        "learning_rate": 0.1 if len(train.targets) >= SMALL else 0.05,
        "num_leaves": 63,
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
    return model.model_to_string(num_iteration=model.best_iteration or -1), model.current_iteration()


@dataclass(frozen=True, eq=False)  # LightGBM keeps its callbacks in a set
class _StopAt:
    """A callback of LightGBM that ends training when the clock has run out."""

    clock: Clock
    stop: type[Exception]
    order: int = 40  # after LightGBM's own early stopping

    def __call__(self, env: Any) -> None:
        if self.clock.left <= 0:
            raise self.stop(env.iteration, env.evaluation_result_list or [])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
