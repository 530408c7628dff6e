"""A synthetic table and the truth about it."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl

from motet.bench.synth._labels import Labels, as_series, hidden, keep_some, make_labels
from motet.bench.synth._settings import SynthSettings
from motet.bench.synth._signals import Polynomial, directions, turned, wanted_correlation

TRAIN, VALIDATION = 0.64, 0.84  # where the parts of the rows end; the rest is test
STREAMS = ("features", "split", "time", "drift", "directions", "scales", "tasks_of_rows")


@dataclass(frozen=True)
class SynthTruth:
    """What is true of a synthetic table and stands in none of its columns.

    Args:
        settings: what was asked for.
        seed: of everything.
        tasks: for each task its name, kind, role, degree, scale, labelled rows, asked and achieved share of missing
            labels, and the classes in the order of the signal.
        directions: (T, F) unit vectors, at the first row's time.
        signals: (N, T) what the features say about each label, of mean 0 and variance 1 over the population.
        correlation_directions: (T, T) inner products of the directions.
        correlation_labels: (T, T) of the labels before any is hidden; classes count in the order of the signal.
    """

    settings: SynthSettings
    seed: int
    tasks: tuple[dict[str, Any], ...]
    directions: np.ndarray
    signals: np.ndarray
    correlation_directions: np.ndarray
    correlation_labels: np.ndarray

    def to_dict(self) -> dict[str, Any]:
        """The record as plain JSON data, without what is as long as the table."""
        ordinary = np.array([role == "ordinary" for role in self.settings.roles])
        pairs = np.triu(np.outer(ordinary, ordinary), 1)
        labels = self.correlation_labels[pairs]
        worst = np.abs(self.correlation_directions - wanted_correlation(self.settings)).max()
        known = labels[np.isfinite(labels)]
        return {
            "settings": asdict(self.settings),
            "seed": self.seed,
            "correlation": {
                "asked": self.settings.correlation,
                "of": self.settings.match,
                "directions_mean": _round(self.correlation_directions[pairs].mean()) if pairs.any() else None,
                "directions_worst_miss": _round(worst),
                "labels_mean": _round(known.mean()) if len(known) else None,
                "labels_range": [_round(known.min()), _round(known.max())] if len(known) else None,
                "labels": [[_round(value) for value in row] for row in self.correlation_labels],
            },
            "tasks": list(self.tasks),
        }


def synthesise(settings: SynthSettings | None = None, *, seed: int = 0) -> tuple[pl.DataFrame, SynthTruth]:
    """A table with several tasks, and the truth about it.

    Features are drawn first and never look at a label: x ~ N(0, I_F). Task i has a unit direction w_i and the signal
    s_i = q_i(w_i · x), with q_i(z) = z + z² + … + z^degree standardised over the population. Labels follow from
    s_i + noise; which part of the split a row is in is drawn by row. Choose it to test what a method does where the
    truth is known; real tables are neither normal nor polynomial.

    Args:
        settings: what it is to be like; None for the defaults.
        seed: of everything; features and split do not change with the tasks' settings.

    Returns:
        the table, and the truth. Columns `x1`…`xF`; `time` with drift; then in the wide form one column for each task,
        and in the long form `task` and `label`; then `split` with train, validation and test.

    Cost: N × T numbers of memory.

    Source: MultiTab-Bench (Sinodinos, Wei and Armanfard, AAAI 2026) for directions and polynomials. Departures: signals
        are standardised, so that a high degree does not drown the others; noise is in units of the signal; with more
        tasks than features the directions come as near as can be; the split has test rows of its own, which the
        released code lacks; everything beyond regression with one correlation is added.

    Example:
        >>> frame, truth = synthesise(SynthSettings(rows=100, tasks=2, features=3))
        >>> frame.columns
        ['x1', 'x2', 'x3', 'task_1', 'task_2', 'split']
    """
    settings = settings or SynthSettings()
    draws = {stream: np.random.default_rng([seed, place]) for place, stream in enumerate(STREAMS)}
    counts = _rows_of_tasks(settings)
    num_rows = sum(counts) if settings.form == "long" else settings.rows
    inputs_NF = draws["features"].normal(size=(num_rows, settings.features))
    time_N = np.sort(draws["time"].random(num_rows)) if settings.drift else None
    w_TF = directions(wanted_correlation(settings), settings.features, draws["directions"])
    moved_NF = inputs_NF if time_N is None else turned(inputs_NF, time_N, settings.drift, draws["drift"])
    polynomials = [Polynomial(degree) for degree in settings.each(settings.degree)]
    z_NT = moved_NF @ w_TF.T
    signals_NT = np.stack([polynomial(z_NT[:, task]) for task, polynomial in enumerate(polynomials)], axis=1)
    scales = _scales(settings, draws["scales"])
    labels, present_NT = _labels(settings, seed, inputs_NF, signals_NT, polynomials, scales)
    frame = pl.DataFrame({f"x{place + 1}": inputs_NF[:, place] for place in range(settings.features)})
    if time_N is not None:
        frame = frame.with_columns(pl.Series("time", time_N))
    if settings.form == "long":
        owner_N = draws["tasks_of_rows"].permutation(np.repeat(np.arange(settings.tasks), counts))
        present_NT &= owner_N[:, None] == np.arange(settings.tasks)
        frame = frame.with_columns(_long(settings, labels, present_NT, owner_N))
    else:
        frame = frame.with_columns(
            as_series(name, labels[task].values, present_NT[:, task]) for task, name in enumerate(settings.names)
        )
    frame = frame.with_columns(_split(num_rows, time_N, draws["split"]))
    truth = SynthTruth(
        settings, seed, _records(settings, labels, present_NT, scales, counts), w_TF, signals_NT, w_TF @ w_TF.T,
        _correlations(labels),
    )  # fmt: skip
    return frame, truth


def _rows_of_tasks(settings: SynthSettings) -> list[int]:
    if settings.rows_per_task is not None:
        return list(settings.each(settings.rows_per_task))
    if settings.form == "wide":
        return [settings.rows] * settings.tasks
    return [len(part) for part in np.array_split(np.arange(settings.rows), settings.tasks)]


def _scales(settings: SynthSettings, generator: np.random.Generator) -> np.ndarray:
    return generator.permutation(np.geomspace(1.0, settings.scale_ratio, settings.tasks))


def _labels(
    settings: SynthSettings, seed: int, inputs_NF: np.ndarray, signals_NT: np.ndarray,
    polynomials: list[Polynomial], scales: np.ndarray,
) -> tuple[list[Labels], np.ndarray]:  # fmt: skip
    labels: list[Labels] = []
    present_NT = np.ones(signals_NT.shape, dtype=bool)
    counts = _rows_of_tasks(settings)
    for task, (kind, share) in enumerate(
        zip(settings.each(settings.kinds), settings.each(settings.missing), strict=True)
    ):
        generator = np.random.default_rng([seed, len(STREAMS), task])
        latent_N = signals_NT[:, task] + settings.noise * generator.normal(size=len(signals_NT))
        population = polynomials[task].population(settings.noise)
        labels.append(make_labels(settings, kind, latent_N, population, float(scales[task]), generator))
        feature_N = inputs_NF[:, task % settings.features]
        present_NT[:, task] = ~hidden(share, settings.mechanism, latent_N, population, feature_N, generator)
        if settings.form == "wide" and settings.rows_per_task is not None:
            present_NT[:, task] = keep_some(present_NT[:, task], counts[task], generator)
    return labels, present_NT


def _long(
    settings: SynthSettings, labels: list[Labels], present_NT: np.ndarray, owner_N: np.ndarray
) -> list[pl.Series]:
    values = np.stack([label.values for label in labels], axis=1)[np.arange(len(owner_N)), owner_N]
    return [
        pl.Series("task", np.array(settings.names)[owner_N]),
        as_series("label", values, np.asarray(present_NT.any(axis=1))),
    ]


def _split(num_rows: int, time_N: np.ndarray | None, generator: np.random.Generator) -> pl.Series:
    places = generator.random(num_rows) if time_N is None else time_N
    parts = np.array(["train", "validation", "test"])[np.searchsorted([TRAIN, VALIDATION], places, side="right")]
    return pl.Series("split", parts)


def _records(
    settings: SynthSettings, labels: list[Labels], present_NT: np.ndarray, scales: np.ndarray, counts: list[int]
) -> tuple[dict[str, Any], ...]:
    found = []
    for task, kind in enumerate(settings.each(settings.kinds)):
        labelled = int(present_NT[:, task].sum())
        rows = counts[task] if settings.form == "long" else len(present_NT)
        found.append({
            "name": settings.names[task], "kind": kind, "role": settings.roles[task],
            "degree": settings.each(settings.degree)[task],
            "scale": _round(scales[task]) if kind in ("regression", "count") else None,
            "noise_rmse": _round(scales[task] * settings.noise) if kind == "regression" else None,
            "labelled_rows": labelled, "missing_asked": settings.each(settings.missing)[task],
            "missing_achieved": _round(1.0 - labelled / rows), "classes": list(labels[task].classes),
        })  # fmt: skip
    return tuple(found)


def _correlations(labels: list[Labels]) -> np.ndarray:
    codes = np.stack([label.codes for label in labels], axis=1)
    centred = codes - codes.mean(axis=0)
    deviations = np.sqrt((centred**2).sum(axis=0))
    with np.errstate(invalid="ignore", divide="ignore"):
        return centred.T @ centred / np.outer(deviations, deviations)


def _round(value: float) -> float | None:
    return round(float(value), 6) if np.isfinite(value) else None
