"""Rows to check a graph on where no table is given: made up from what the model knows of its columns."""

from collections.abc import Sequence

import numpy as np
import polars as pl
from torch import nn

from motet.data._columns import CategoryColumn
from motet.models.encoders import PiecewiseLinear
from motet.serve._columns import keys_of
from motet.tabular._served import Served
from motet.tabular._tree_columns import TreeColumns
from motet.tabular.boosting._rmtgb import parts_of
from motet.tabular.task_column._learners import Embedding, Robust
from motet.tabular.task_column._served import ServedTasks
from motet.tabular.task_column._table import NO_TASK

DAY = 86_400_000_000  # microseconds
LEAST, LARGEST = 1e-30, 1e30
MISSING = 0.05  # of the values; as many again are out of range, or levels that were never seen


def made_up(served: Served | ServedTasks, count: int, seed: int) -> pl.DataFrame:
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
        if isinstance(served, ServedTasks) and levels.name == served.column:
            columns[levels.name] = _tasks(served, levels, count, generator)
            continue
        if levels.source == "boolean":
            values = pl.Series(generator.integers(0, 2, count).astype(bool))
        else:
            strange = "never seen" if levels.source == "text" else 1.5 + max((float(key) for key in keys), default=0.0)
            drawn = generator.integers(0, len(keys) + 1, count)
            values = pl.Series([[*keys, strange][code] for code in drawn.tolist()])
        columns[levels.name] = _some_null(values, generator)
    return pl.DataFrame(columns)


def _tasks(served: ServedTasks, levels: CategoryColumn, count: int, generator: np.random.Generator) -> pl.Series:
    """Tasks that were learned, however rare, others, and none."""
    keys = keys_of(tuple(sorted(served.known - {NO_TASK})), levels.source)
    if levels.source == "boolean":
        return _some_null(pl.Series([bool(key) for key in generator.choice(keys, count)]), generator)
    strange = "never seen" if levels.source == "text" else 1.0 + max((float(key) for key in keys), default=0.0)
    drawn = generator.integers(0, len(keys) + 1, count)
    return _some_null(pl.Series([[*keys, strange][code] for code in drawn.tolist()]), generator)


def _models(served: Served | ServedTasks) -> tuple[list[nn.Module], list[TreeColumns]]:
    """The networks and the trees that some row may meet."""
    if isinstance(served, ServedTasks):
        learner, own = served.shared, served.own
        trees = [model for boosting in own.trees.values() for model in boosting.columns()]
        if isinstance(learner, Robust):
            trees += [TreeColumns.from_text(text) for text in parts_of(learner.model).texts.values() if text]
        return ([learner.model] if isinstance(learner, Embedding) else []), _grown(trees)
    trees = [model for boosting in served.trees.values() for model in boosting.columns()]
    return [network.model for network in served.networks], _grown(trees)


def _grown(trees: Sequence[TreeColumns | float]) -> list[TreeColumns]:
    return [model for model in trees if isinstance(model, TreeColumns)]


def _marks(served: Served | ServedTasks) -> list[np.ndarray]:
    """For each number: where its bins begin and where trees split it, as models see it."""
    found: list[list[np.ndarray]] = [[np.zeros(1)] for _ in served.encoder.number_names]
    networks, grown = _models(served)
    for network in networks:
        for module in network.modules():
            if isinstance(module, PiecewiseLinear):
                for place, edges in enumerate(module.low.cpu().numpy()):
                    found[place].append(edges)
    for model in grown:
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
