"""From signals to labels of each kind, and which of them are missing."""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import polars as pl

from motet.bench.synth._settings import SynthSettings

STEEPNESS = 0.7  # of a count's log rate in the signal
CLIPPED = 3.0  # signals beyond do not raise a rate: a polynomial in an exponential has no mean
BASE_RATE = 2.0
DEPENDENCE = 0.8  # correlation of being missing with what explains it


@dataclass(frozen=True)
class Labels:
    """One task's labels, complete.

    Args:
        values: (N,) numbers, booleans or class names.
        codes: (N,) float64, the same as numbers in the order of the signal, to correlate.
        classes: the class names in the order of the signal, for classes.
    """

    values: np.ndarray
    codes: np.ndarray
    classes: tuple[str, ...] = ()


def make_labels(
    settings: SynthSettings, kind: str, latent_N: np.ndarray, population: np.ndarray, scale: float,
    generator: np.random.Generator,
) -> Labels:  # fmt: skip
    """Labels of one kind.

    - regression: scale · latent.
    - binary: whether the latent is in the population's upper `positive_share`.
    - multiclass: which of C equally likely bands the latent is in; the bands are named in shuffled order.
    - count: Poisson of rate 2 · scale · exp(0.7 · latent), the latent clipped at ±3.

    Args:
        settings: shares and classes.
        kind: see above.
        latent_N: signal and noise.
        population: sorted values of the latent over the population; cuts come from here, never from the rows.
        scale: of numbers.
        generator: of counts and of the order of classes.
    """
    if kind == "regression":
        return Labels(scale * latent_N, latent_N)
    if kind == "count":
        rate = BASE_RATE * scale * np.exp(STEEPNESS * np.clip(latent_N, -CLIPPED, CLIPPED))
        counts = generator.poisson(rate)
        return Labels(counts, counts.astype(np.float64))
    if kind == "binary":
        found = latent_N > np.quantile(population, 1.0 - settings.positive_share)
        return Labels(found, found.astype(np.float64))
    bands = np.searchsorted(
        np.quantile(population, np.arange(1, settings.classes) / settings.classes), latent_N, side="right"
    )
    classes = tuple(f"class_{number + 1}" for number in generator.permutation(settings.classes))
    return Labels(np.array(classes)[bands], bands.astype(np.float64), classes)


def hidden(
    share: float, mechanism: str, latent_N: np.ndarray, population: np.ndarray, feature_N: np.ndarray,
    generator: np.random.Generator,
) -> np.ndarray:  # fmt: skip
    """Which labels are missing, (N,) bool: where 0.8 of a reason and 0.6 of chance, both standard normal, are high.

    The reason is chance too (`mcar`), a feature (`mar`), or the label's rank in the population (`mnar`); the expected
    share is exact for each.
    """
    if share == 0.0:
        return np.zeros(len(latent_N), dtype=bool)
    chance = generator.normal(size=len(latent_N))
    reason = {"mcar": chance, "mar": feature_N}.get(mechanism)
    if reason is None:
        rank = (np.searchsorted(population, latent_N, side="right") + 0.5) / (len(population) + 1)
        normal = NormalDist()
        reason = np.array([normal.inv_cdf(float(value)) for value in rank])
    wish = chance if mechanism == "mcar" else DEPENDENCE * reason + (1 - DEPENDENCE**2) ** 0.5 * chance
    return wish > NormalDist().inv_cdf(1.0 - share)


def keep_some(present: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """`present`, made narrower by chance to at most `count` rows."""
    rows = np.flatnonzero(present)
    kept = np.zeros_like(present)
    kept[generator.permutation(rows)[:count]] = True
    return kept


def as_series(name: str, values: np.ndarray, present: np.ndarray) -> pl.Series:
    """Labels as a column, null where missing."""
    return pl.select(pl.when(pl.Series(present)).then(pl.Series(values)).otherwise(None).alias(name)).to_series()
