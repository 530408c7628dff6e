"""Features that give a target away."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from motet.data._labels import label_arrays
from motet.data._one_feature import Binned, Hits, bin_feature, roc_aucs, squared_r
from motet.data._schema import Schema
from motet.tasks import Task

SAMPLE_ROWS = 20_000
SUSPECT_AUC = 0.995
SUSPECT_R2 = 0.99
LEAST_ROWS = 20
MOST_LABELS = 100
FEW_INTEGERS = 10
UNUSED_ROLES = ("identifier", "text")


@dataclass(frozen=True)
class Leak:
    """A suspect: a feature that determines a target almost alone.

    Args:
        feature: the column.
        task: whose label it gives away.
        metric: "roc_auc", "r2", or "copy" for a column that repeats the label or its order.
        score: of the metric; 1 for a copy.
        reason: in words.
    """

    feature: str
    task: str
    metric: str
    score: float
    reason: str


def find_leaks(frame: pl.DataFrame, schema: Schema, tasks: Sequence[Task], *, rows: np.ndarray) -> list[Leak]:
    """Names features that tell a target almost alone, on at most 20,000 training rows.

    A copy of a label, a one-to-one relabelling, or a column in exactly its order is found in any column, also in text
    and identifiers that no model reads. Features are further tried one by one: fitted on half of the sample (64
    quantile bins with a line in each, or a mean a level), scored on the other half. Numbers are suspect from R² 0.99,
    classes from an area under the curve of 0.995 (mean over classes, best of several labels). A strong honest feature
    stays below: the flights' distance explains 0.98 of their time in the air. Suspects are only named; the caller
    decides.

    Args:
        frame: the table.
        schema: of the table.
        tasks: fitted or not.
        rows: (n,) int64, the training rows.
    """
    generator = np.random.default_rng(0)
    sample = rows if len(rows) <= SAMPLE_ROWS else generator.choice(rows, SAMPLE_ROWS, replace=False)
    sample = np.sort(sample)
    label_names = [name for task in tasks for name in task.label_columns]
    names = [column.name for column in schema.columns if column.used or column.role in UNUSED_ROLES]
    part = frame.select(list(dict.fromkeys([*names, *label_names])))[sample]
    half = generator.permutation(len(part)) < len(part) // 2
    labels = [(task, *label_arrays(part, task)) for task in tasks]
    scored = [(task, _scored(values), present) for task, values, present in labels]
    features = schema.features()
    leaks: list[Leak] = []
    for name in names:
        binned = bin_feature(part.get_column(name), half) if name in features else None
        for task, label, present in scored:
            leak = _copy(part, name, task)
            if leak is None and binned is not None:
                leak = _suspect(name, task.name, binned, label, present, half)
            leaks.extend([leak] if leak is not None else [])
    return leaks


def _scored(values: np.ndarray) -> Hits | np.ndarray:
    """A label as classes or labels to tell apart, or as (N,) numbers to explain."""
    if values.ndim == 2:
        return Hits(np.nan_to_num(values) > 0, values.shape[1])
    if values.dtype == object and isinstance(values[0], list):
        names = sorted({str(label) for row in values for label in row})[:MOST_LABELS]
        return Hits(np.array([[name in row for name in names] for row in values]), len(names))
    codes = pl.Series(values).rank("dense").to_numpy().astype(np.int64) - 1
    num_classes = int(codes.max(initial=0)) + 1
    if (values.dtype == np.float64 and num_classes > 2) or (values.dtype == np.int64 and num_classes > FEW_INTEGERS):
        return values.astype(np.float64)
    return Hits(np.minimum(codes, MOST_LABELS), min(num_classes, MOST_LABELS + 1))


def _copy(part: pl.DataFrame, name: str, task: Task) -> Leak | None:
    """A column that equals a label column, or whose values stand for its values one to one."""
    for label in task.label_columns:
        pair = part.select(pl.col(name).alias("feature"), pl.col(label).alias("label")).drop_nulls()
        num_rows = len(pair)
        if num_rows < LEAST_ROWS or pair.schema["label"].is_nested() or pair.schema["feature"].is_nested():
            continue
        distinct = [pair.get_column(side).n_unique() for side in ("feature", "label")]
        if min(distinct) < 2 or distinct[0] != distinct[1]:
            continue
        if distinct[0] <= num_rows // 2:
            same = pair.n_unique() == distinct[0]
            words = f"tells '{label}' exactly, value for value ({distinct[0]}), in all {num_rows} rows looked at"
        else:  # where nearly all values differ, one-to-one says nothing, but the same order does
            same = _same_order(pair.get_column("feature"), pair.get_column("label"))
            words = f"repeats '{label}', or its order, in all {num_rows} rows looked at"
        if same:
            return Leak(name, task.name, "copy", 1.0, f"'{name}' {words}")
    return None


def _same_order(feature: pl.Series, label: pl.Series) -> bool:
    ranks, others = feature.rank("dense").to_numpy(), label.rank("dense").to_numpy()
    return bool((ranks == others).all() or (ranks + others == others.max() + 1).all())


def _suspect(
    name: str, task: str, binned: Binned, label: Hits | np.ndarray, present: np.ndarray, half: np.ndarray
) -> Leak | None:
    fit, score = present & half, present & ~half
    if min(fit.sum(), score.sum()) < LEAST_ROWS:
        return None
    if isinstance(label, np.ndarray):
        found = squared_r(binned, label, fit, score)
        words = f"'{name}' alone explains {found:.4f} of the variance of '{task}'"
        return Leak(name, task, "r2", found, words) if found >= SUSPECT_R2 else None
    areas = roc_aucs(binned, label, fit, score)
    areas = areas[~np.isnan(areas)]
    if len(areas) == 0:
        return None
    found = float(areas.max() if label.labels.ndim == 2 else areas.mean())
    words = f"'{name}' alone separates the classes of '{task}' with an area under the curve of {found:.4f}"
    return Leak(name, task, "roc_auc", found, words) if found >= SUSPECT_AUC else None
