"""One block of trees in training: LightGBM grows each tree on gradients that it is handed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from motet._errors import require

DATA = {"verbosity": -1, "max_bin": 255}


@dataclass(frozen=True)
class TreeSettings:
    """How trees are grown; the same for every block but the rate.

    Args:
        learning_rate: how much of its Newton step a tree takes.
        num_leaves: at most.
        min_rows: in a leaf, and the least curvature in units of a row's.
        seed: of LightGBM.
        threads: processor threads.
    """

    learning_rate: float = 0.05
    num_leaves: int = 15
    min_rows: int = 20
    seed: int = 0
    threads: int = 1

    def parameters(self, width: int, rate: float) -> dict[str, Any]:
        """LightGBM's names for it."""
        return {
            "objective": "none", "metric": "none", "num_class": width, "boost_from_average": False,
            "learning_rate": rate, "num_leaves": self.num_leaves, "min_data_in_leaf": self.min_rows,
            "seed": self.seed, "num_threads": self.threads, "verbosity": -1, "deterministic": True,
            "force_row_wise": True,
        }  # fmt: skip


def binned(matrices: Sequence[np.ndarray], num_categories: int) -> list[Any]:
    """Train and stop rows in LightGBM's bins; the bins are the train rows'.

    Args:
        matrices: train, and stop where there is any.
        num_categories: how many of the last columns are categories.
    """
    lightgbm = require("lightgbm", "tables")
    width = matrices[0].shape[1]
    train = lightgbm.Dataset(
        matrices[0],
        label=np.zeros(len(matrices[0])),
        categorical_feature=list(range(width - num_categories, width)),
        params=DATA,
        free_raw_data=False,
    )
    return [train, *(train.create_valid(rows, label=np.zeros(len(rows)), params=DATA) for rows in matrices[1:])]


class Trees:
    """A growing block with its scores so far.

    Args:
        data: what `binned` gave.
        settings: how trees are grown.
        width: C scores a row.
        rate: of this block.
        least: the least curvature of a leaf.

    Attributes:
        scores: (N, C) of the train rows, and (M, C) of the stop rows where there are any.
    """

    def __init__(self, data: Sequence[Any], settings: TreeSettings, *, width: int, rate: float, least: float) -> None:
        lightgbm = require("lightgbm", "tables")
        parameters = settings.parameters(width, rate) | {"min_sum_hessian_in_leaf": least}
        self._booster = lightgbm.Booster(parameters, data[0])
        for rows in data[1:]:
            self._booster.add_valid(rows, "stop")
        self.scores = [np.zeros((len(part.get_label()), width)) for part in data]

    @property
    def count(self) -> int:
        """Rounds that gave a tree: one without a split is dropped."""
        return self._booster.current_iteration()

    def grow(self, gradient_NC: np.ndarray, curvature_NC: np.ndarray) -> None:
        """Adds one tree for each score."""
        flat = gradient_NC.shape[1] == 1
        pair = (gradient_NC[:, 0], curvature_NC[:, 0]) if flat else (gradient_NC, curvature_NC)

        def slopes(*_: Any) -> tuple[np.ndarray, np.ndarray]:
            return pair

        self._booster.update(fobj=slopes)
        found: list[np.ndarray] = []

        def keep(scores: np.ndarray, _: Any) -> tuple[str, float, bool]:
            found.append(np.array(scores, dtype=np.float64))
            return "", 0.0, False

        self._booster.eval_train(keep)
        if len(self.scores) > 1:
            self._booster.eval_valid(keep)
        width = gradient_NC.shape[1]
        self.scores = [part if part.ndim == 2 else part.reshape(-1, width, order="F") for part in found]

    def predict(self, matrix: np.ndarray) -> np.ndarray:
        """Scores (N, C) of other rows by all trees so far."""
        found = self._booster.predict(matrix, raw_score=True)
        return np.asarray(found).reshape(len(matrix), -1)

    def text(self, count: int) -> str:
        """LightGBM's text form of the first `count` rounds."""
        return self._booster.model_to_string(num_iteration=count) if count else ""
