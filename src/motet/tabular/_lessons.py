"""What a small network is taught with: labels, and answers of the models that it is to stand for."""

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import numpy as np

from motet.data import FeatureEncoder, Features, Split, TableRows
from motet.tabular._candidates import Candidates
from motet.tabular._prepared import Prepared, join
from motet.tabular._taught import Taught, estimate_width, pack
from motet.tasks import Quantile, Regression, Task
from motet.train import Clock, estimate, skill

MOST_ROWS = 1_000_000  # training rows; more are thinned evenly, for the memory's sake
MOST_NEW_ROWS = 300_000
KNOWN_WELL = 0.8  # of the way from the best constant to no error at all
SWAPPED = 0.05  # of a new row's columns, and one in any case
ROWS_AT_ONCE = 16_384

Shares = Mapping[str, Mapping[str, float]]


def make_lessons(
    prepared: Prepared, found: Candidates, teachers: Shares, *, seed: int, clock: Clock, threads: int
) -> Prepared:
    """The table as a student sees it: its own rows, and new ones that were put together from training rows.

    A model that learned a row's label has part of it by heart, so it speaks only of rows that it did not learn from:
    training rows that lack its target's label, and new rows. Each of those is a training row in which some columns are
    another training row's. Of a number that is known to a few percent it says nothing of new rows: labels are nearer to
    the truth than any model's answer for a row that never was. Labels of training rows stay; choose and test rows are
    not there at all. When the clock runs out, what has been said is all.

    Args:
        prepared: the table.
        found: the trained candidates.
        teachers: by task, how much of each candidate's estimate its teacher mixes.
        seed: of the new rows.
        clock: the time for asking.
        threads: processor threads of the trees.
    """
    draw = np.random.default_rng([seed, 11])
    train, stop = thinned(prepared.split.train, MOST_ROWS), prepared.split.stop
    learned = prepared.features.take(train)
    new = swap_columns(learned, prepared.encoder, min(len(train), MOST_NEW_ROWS), draw)
    ended = prepared.features.take(stop)
    features = Features(
        np.concatenate([learned.numbers, ended.numbers, new.numbers]),
        np.concatenate([learned.categories, ended.categories, new.categories]),
    )
    rows = np.concatenate([train, stop])
    asked = {}
    for task in prepared.tasks:
        asked[task.name] = np.ones(len(features), dtype=bool)
        asked[task.name][: len(train)] = ~prepared.rows.present[task.name].numpy()[train]
        asked[task.name][len(train) : len(rows)] = False
        if _known_well(found, task):
            asked[task.name][len(rows) :] = False
    soft = _ask(found, prepared.tasks, teachers, features, asked, draw=draw, clock=clock, threads=threads)
    return _student_table(prepared, features, rows, soft)


def _known_well(found: Candidates, task: Task) -> bool:
    """Whether the shared network has a number's error down to a small part of the best constant's."""
    best = found.networks[""].trained.best
    skilled = skill(task, best.joint_scores[task.name], best.constants[task.name]) > KNOWN_WELL
    return skilled and isinstance(task, (Regression, Quantile))


def thinned(rows: np.ndarray, most: int) -> np.ndarray:
    """Evenly chosen rows, `most` of them at most."""
    return rows if len(rows) <= most else rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)]


def swap_columns(features: Features, encoder: FeatureEncoder, count: int, draw: np.random.Generator) -> Features:
    """New rows, each one row's with one column or a few taken from another; a date's parts go together.

    Args:
        features: (N, …) the rows that are mixed.
        encoder: says which encoded numbers are one column's.
        count: how many new rows.
        draw: random numbers.
    """
    parts = [len(column.parts) for column in encoder.date_columns]
    places = np.repeat(np.arange(len(encoder.number_columns) + len(parts)), [1] * len(encoder.number_columns) + parts)
    num_columns = len(encoder.number_columns) + len(parts) + features.categories.shape[1]
    base, donor = draw.integers(0, len(features), size=(2, count))
    swapped = draw.random((count, num_columns), dtype=np.float32) < SWAPPED
    swapped[np.arange(count), draw.integers(0, num_columns, size=count)] = True  # at least one, or it is no new row
    numbers = np.where(swapped[:, places], features.numbers[donor], features.numbers[base])
    first = num_columns - features.categories.shape[1]
    categories = np.where(swapped[:, first:], features.categories[donor], features.categories[base])
    return Features(numbers, categories)


def teach(
    found: Candidates, tasks: list[Task], teachers: Shares, features: Features, *, threads: int
) -> dict[str, np.ndarray]:
    """What each task's teacher estimates for encoded rows, (N, K) float32."""
    rows, places = TableRows(features, {}, {}), np.arange(len(features))
    parts: dict[str, dict[str, np.ndarray]] = {task.name: {} for task in tasks}
    for candidate in ("shared", "own_network"):
        wanted = [task.name for task in tasks if candidate in teachers[task.name]]
        for key in {name if candidate == "own_network" and name in found.networks else "" for name in wanted}:
            network = found.networks[key]
            for state, names in network.distinct():
                if chosen := [name for name in names if name in wanted]:
                    model = network.shape.build(network.tasks)
                    model.load_state_dict(state)
                    for name, values in estimate(model, rows, places, chosen).items():
                        parts[name][candidate] = values
    matrix = join(features)
    soft = {}
    for task in tasks:
        if "own_lightgbm" in teachers[task.name]:
            parts[task.name]["own_lightgbm"] = found.trees[task.name].estimate(matrix, threads=threads)
        shares = teachers[task.name]
        total = sum(share * np.asarray(parts[task.name][name], np.float64) for name, share in shares.items())
        soft[task.name] = np.asarray(total, dtype=np.float32).reshape(len(features), estimate_width(task))
    return soft


def _ask(
    found: Candidates,
    tasks: list[Task],
    teachers: Shares,
    features: Features,
    asked: dict[str, np.ndarray],
    *,
    draw: np.random.Generator,
    clock: Clock,
    threads: int,
) -> dict[str, np.ndarray]:
    """The teachers' estimates for the rows that they are asked about, NaN elsewhere, as far as the clock goes."""
    soft = {task.name: np.full((len(features), estimate_width(task)), np.nan, dtype=np.float32) for task in tasks}
    order = draw.permutation(np.flatnonzero(np.any(list(asked.values()), axis=0)))
    for start in range(0, len(order), ROWS_AT_ONCE):
        if clock.left <= 0:
            break
        rows = order[start : start + ROWS_AT_ONCE]
        said = teach(found, tasks, teachers, features.take(rows), threads=threads)
        for name, values in said.items():
            heard = asked[name][rows]
            soft[name][rows[heard]] = values[heard]
    return soft


def _student_table(prepared: Prepared, features: Features, rows: np.ndarray, soft: dict[str, np.ndarray]) -> Prepared:
    """The rows that the table has, training rows before stop rows, then new ones."""
    more, num_stop = len(features) - len(rows), len(prepared.split.stop)
    targets: dict[str, np.ndarray] = {}
    present: dict[str, np.ndarray] = {}
    for task in prepared.tasks:
        labels = prepared.rows.targets[task.name].numpy()[rows]
        labels = np.concatenate([labels, np.zeros((more, *labels.shape[1:]), dtype=labels.dtype)])
        known = np.concatenate([prepared.rows.present[task.name].numpy()[rows], np.zeros(more, dtype=bool)])
        targets[task.name] = pack(labels, known, soft[task.name], task)
        present[task.name] = known | np.isfinite(soft[task.name]).all(axis=1)
    tasks = cast("list[Task]", [Taught(task) for task in prepared.tasks])  # it has what training asks of a task
    train, nobody = len(rows) - num_stop, np.array([], dtype=np.int64)
    places = np.arange(len(features))
    split = Split(
        np.concatenate([places[:train], places[len(rows) :]]), places[train : len(rows)], nobody, nobody, "given"
    )
    table = TableRows(features, targets, present)
    return replace(prepared, tasks=tasks, features=features, rows=table, split=split, groups=None, order=None)
