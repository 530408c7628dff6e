"""Rows to check a graph on where no table is given: made up from what the model knows of its columns."""

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from motet.models.encoders import PiecewiseLinear
from motet.serve._columns import keys_of

if TYPE_CHECKING:
    from motet.tabular._served import Served

DAY = 86_400_000_000  # microseconds
LEAST, LARGEST = 1e-30, 1e30
MISSING = 0.05  # of the values; as many again are out of range, or levels that were never seen


def made_up(served: "Served", count: int, seed: int) -> pl.DataFrame:
    """Rows (count) of the model's columns: numbers between and beside the edges that its parts split at, any level."""
    generator = np.random.default_rng(seed)
    encoder, marks = served.encoder, _marks(served)
    columns: dict[str, pl.Series] = {}
    for place, numbers in enumerate(encoder.number_columns):
        values = _between(marks[place], count, generator) + numbers.offset
        columns[numbers.name] = pl.Series(values, nan_to_null=True)
    for dates in encoder.date_columns:
        days, clock = generator.integers(-20_000, 40_000, count), generator.integers(0, DAY, count)
        moments = pl.Series(days * DAY + clock, dtype=pl.Int64).cast(pl.Datetime("us"))
        columns[dates.name] = _some_null(moments, generator)
    for levels in encoder.category_columns:
        keys = keys_of(levels.levels, levels.source)
        if levels.source == "boolean":
            values = pl.Series(generator.integers(0, 2, count).astype(bool))
        else:
            strange = "never seen" if levels.source == "text" else 1.5 + max((float(key) for key in keys), default=0.0)
            drawn = generator.integers(0, len(keys) + 1, count)
            values = pl.Series([[*keys, strange][code] for code in drawn.tolist()])
        columns[levels.name] = _some_null(values, generator)
    return pl.DataFrame(columns)


def _marks(served: "Served") -> list[np.ndarray]:
    """For each number: where its bins begin and where trees split it, as models see it."""
    found: list[list[np.ndarray]] = [[np.zeros(1)] for _ in served.encoder.number_names]
    for network in served.networks:
        for module in network.model.modules():
            if isinstance(module, PiecewiseLinear):
                for place, edges in enumerate(module.low.cpu().numpy()):
                    found[place].append(edges)
    for trees in served.trees.values():
        for model in trees.columns():
            if isinstance(model, float):
                continue
            features, cuts = model.columns["split_feature"], model.columns["threshold"]
            for place in range(len(found)):
                found[place].append(np.unique(cuts[features == place]))
    marks = [np.unique(np.concatenate(parts).astype(np.float64)) for parts in found]
    # LightGBM's words for zero's two sides and for the last bin's end are no numbers that a table holds.
    return [part[(part == 0) | (np.abs(part) > LEAST) & (np.abs(part) < LARGEST)] for part in marks]


def _between(marks: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    spread = float(marks[-1] - marks[0]) or 1.0
    reach = spread * generator.choice([0, 0.01, 1], count)
    values = generator.choice(marks, count) + generator.normal(size=count) * reach
    values[generator.random(count) < MISSING] = np.nan
    return values


def _some_null(values: pl.Series, generator: np.random.Generator) -> pl.Series:
    return values.set(pl.Series(generator.random(len(values)) < MISSING), None)
