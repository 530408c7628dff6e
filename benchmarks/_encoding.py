"""A table as the matrix that the rivals read, fitted on training rows."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from _datasets import Dataset

Predictions = dict[str, np.ndarray]


@dataclass(frozen=True)
class Fitted:
    """A rival that has been fitted.

    Args:
        predict: from a matrix (N, F) and a number of threads to every target's values (N,), or probabilities (N,) or
            (N, C).
        artefact: what one would have to keep to predict tomorrow.
        notes: what a reader of the numbers should know.
    """

    predict: Callable[[np.ndarray, int], Predictions]
    artefact: bytes
    notes: list[str] = field(default_factory=list)


class Encoded:
    """Matrices and labels of one data set: numbers first, then categories as codes; NaN where a value is missing."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        train = dataset.part("train")
        self.numbers = [name for name in dataset.features if train[name].dtype != pl.String]
        names = [name for name in dataset.features if train[name].dtype == pl.String]
        self.levels = {name: sorted(train[name].drop_nulls().unique()) for name in names}
        self.codes = {name: {level: code for code, level in enumerate(levels)} for name, levels in self.levels.items()}
        self.classes = {
            target: sorted(train[target].drop_nulls().unique())
            for target, kind in dataset.targets
            if kind == "multiclass"
        }

    @property
    def category_places(self) -> list[int]:
        """The columns of the matrix that hold codes."""
        return list(range(len(self.numbers), len(self.numbers) + len(self.levels)))

    def column(self, name: str) -> int:
        """The place of a category in the matrix."""
        return len(self.numbers) + list(self.levels).index(name)

    def matrix(self, frame: pl.DataFrame) -> np.ndarray:
        """The features of a frame, (N, F) float32; a category that training rows lacked is NaN."""
        numbers = [pl.col(name).cast(pl.Float32) for name in self.numbers]
        codes = [
            pl.col(name).replace_strict(code, default=None, return_dtype=pl.Float32)
            for name, code in self.codes.items()
        ]
        columns = frame.select(*numbers, *codes).with_columns(pl.all().fill_null(float("nan")))
        return np.ascontiguousarray(columns.to_numpy(), dtype=np.float32)

    def labels(self, frame: pl.DataFrame, target: str) -> np.ndarray:
        """A target as (N,) float64: numbers, 0/1 or class indices; NaN where the label is missing."""
        column = frame[target]
        if target in self.classes:
            code = {level: index for index, level in enumerate(self.classes[target])}
            column = column.replace_strict(code, default=None, return_dtype=pl.Float64)
        return column.cast(pl.Float64).fill_null(float("nan")).to_numpy(writable=True)

    def rows(self, split: str, target: str) -> tuple[np.ndarray, np.ndarray]:
        """Matrix and labels of the rows of a split whose label is known."""
        frame = self.dataset.part(split).filter(pl.col(target).is_not_null())
        matrix, labels = self.matrix(frame), self.labels(frame, target)
        known = ~np.isnan(labels)  # a class that training rows lacked cannot be learnt from
        return matrix[known], labels[known]
