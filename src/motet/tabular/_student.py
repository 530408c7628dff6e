"""The shape of the small network, what it starts from, and how its tasks' losses are brought to one footing."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch

from motet.models import bin_edges, number_sizes
from motet.tabular._crosses import find_crosses
from motet.tabular._network import NetworkShape, State, TrainedNetwork
from motet.tabular._prepared import Prepared
from motet.tabular._taught import Taught
from motet.tasks import Task
from motet.train import Clock, write_json

LOOKUP_ROWS = 20_000  # training rows, from which vectors of combinations are learned well enough
LOOKUP_SECONDS = 45.0  # of time, below which the search for combinations would take too much of it
NUM_BINS, WIDTH, HEAD_WIDTH, VECTOR, CROSS_VECTOR, LEFT_OUT = 48, 128, 32, 8, 6, 0.3

SEEN_ROWS = 4_096  # stop rows whose losses are looked at
LEAST_LOSS = 1e-3  # a target that is known still better weighs no more than this


def student_shape(
    prepared: Prepared, lessons: Prepared, shared: TrainedNetwork, clock: Clock, path: Path | None, *, seed: int
) -> tuple[NetworkShape, State | None]:
    """A narrow network that looks most of a row up where there are rows enough, else the shared network as it is.

    Args:
        prepared: the table, with the labels that say which columns belong together.
        lessons: the table that is learned from, whose numbers give the edges.
        shared: the shared network.
        clock: the time for all of it.
        path: file that keeps the shape for a fit that is resumed, or None.
        seed: of the search.

    Returns:
        The shape, and the state to go on from, or None.
    """
    if path is not None and path.is_file():
        shape = NetworkShape.from_dict(json.loads(path.read_text()))
    elif len(prepared.split.train) < LOOKUP_ROWS or clock.left < LOOKUP_SECONDS:
        shape = shared.shape
    else:
        shape = lookup_shape(prepared, lessons, seed=seed)
    if path is not None:
        write_json(path, shape.to_dict())
    return shape, None if shape.lookup else shared.trained.best.joint_state


def lookup_shape(prepared: Prepared, lessons: Prepared, *, seed: int) -> NetworkShape:
    """The narrow network's shape: a vector for each value and for each cross that explains the labels."""
    edges = bin_edges(lessons.features.numbers[lessons.split.train], num_bins=NUM_BINS)  # as the training finds them
    sizes, category_sizes = number_sizes(edges), tuple(prepared.encoder.category_sizes)
    crosses = find_crosses(prepared, edges.numpy(), [*sizes, *category_sizes], seed=seed)
    return NetworkShape(
        num_bins=NUM_BINS,
        num_numbers=len(sizes),
        category_sizes=category_sizes,
        width=WIDTH,
        num_blocks=1,
        category_dim=VECTOR,
        head_width=HEAD_WIDTH,
        dropout=LEFT_OUT,
        number_sizes=sizes,
        crosses=tuple(crosses),
        cross_dim=CROSS_VECTOR,
        lookup=True,
    )


def losses_of(network: TrainedNetwork, prepared: Prepared) -> dict[str, float]:
    """The mean loss on stop rows of each task that has labels there, in the network's joint best state."""
    model = network.shape.build(prepared.tasks)
    model.load_state_dict(network.trained.best.joint_state)
    batch = prepared.rows.take(prepared.split.stop[:SEEN_ROWS])
    with torch.no_grad():
        found = model.eval().losses(model(batch.inputs), batch.targets, batch.present)
    return {name: float(loss) for name, loss in found.items()}


def evened(lessons: Prepared, losses: Mapping[str, float]) -> Prepared:
    """The same lessons with each task's loss divided by what another network has left of it.

    A target that is known to a percent has a loss a hundred times smaller than one that is mostly noise, and balancing
    that starts from equal weights would get there too late.
    """
    tasks = [replace(task, scale=max(losses.get(task.name, 1.0), LEAST_LOSS)) for task in _taught(lessons)]
    return replace(lessons, tasks=cast("list[Task]", tasks))


def _taught(lessons: Prepared) -> list[Taught]:
    return cast("list[Taught]", lessons.tasks)
