"""The served model: what a finished run keeps to answer, and its form on disk."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from motet._errors import RequestError, suggest
from motet.data import FeatureEncoder, TableRows
from motet.models import MultiTaskModel
from motet.tabular._boosting import Boosting
from motet.tabular._candidates import Candidates, as_tensor
from motet.tabular._network import NetworkShape
from motet.tabular._outcome import Outcome
from motet.tabular._prepared import join
from motet.tasks import Calibration, Interval, Task
from motet.tasks import from_dict as task_from_dict
from motet.train import estimate

FEW_ROWS = 256


@contextlib.contextmanager
def _threads_for(num_rows: int) -> Iterator[None]:
    """One thread for few rows: more would wait for one another longer than they work."""
    before = torch.get_num_threads()
    if num_rows > FEW_ROWS or before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class Answer:
    """How one task is answered.

    Args:
        task: the fitted task.
        served_by: `shared`, `own_network` or `own_lightgbm`.
        calibration: applied to the model's estimates.
        interval: gives bounds around a number, or None.
    """

    task: Task
    served_by: str
    calibration: Calibration
    interval: Interval | None


@dataclass(frozen=True)
class ServedNetwork:
    """One network in one state, and the tasks that it answers."""

    model: MultiTaskModel
    shape: NetworkShape
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Served:
    """Everything that answers: the feature encoder, the networks and the trees that serve some task."""

    encoder: FeatureEncoder
    answers: dict[str, Answer]
    networks: tuple[ServedNetwork, ...]
    trees: dict[str, Boosting]

    @classmethod
    def from_candidates(cls, encoder: FeatureEncoder, outcomes: Sequence[Outcome], found: Candidates) -> "Served":
        """Keeps of the candidates only what serves some task."""
        answers = {
            outcome.task.name: Answer(outcome.task, outcome.served_by, outcome.calibration, outcome.interval)
            for outcome in outcomes
        }
        shared = {name for name, answer in answers.items() if answer.served_by == "shared"}
        own = {name for name, answer in answers.items() if answer.served_by == "own_network"}
        networks = []
        for key, network in found.networks.items():
            wanted = shared | (own if len(answers) == 1 else set()) if key == "" else own & {key}
            for state, names in network.distinct():
                if serving := tuple(name for name in names if name in wanted):
                    model = network.shape.build(network.tasks)
                    model.load_state_dict(state)
                    networks.append(ServedNetwork(model.eval(), network.shape, serving))
        trees = {name: found.trees[name] for name, answer in answers.items() if answer.served_by == "own_lightgbm"}
        return cls(encoder, answers, tuple(networks), trees)

    def estimate(self, frame: pl.DataFrame, tasks: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Calibrated estimates of the asked-for tasks for every row of a table; only what they need is computed."""
        names = self.names(tasks)
        with _threads_for(frame.height):
            return self._estimate(frame, names)

    def _estimate(self, frame: pl.DataFrame, names: Sequence[str]) -> dict[str, np.ndarray]:
        features = self.encoder.transform(frame)
        found: dict[str, np.ndarray] = {}
        rows = TableRows(features, {}, {})
        for network in self.networks:
            if wanted := [name for name in network.answers if name in names]:
                found |= estimate(network.model, rows, np.arange(frame.height), wanted)
        if wanted := [name for name in self.trees if name in names]:
            matrix = join(features)
            threads = torch.get_num_threads()
            found |= {name: self.trees[name].estimate(matrix, threads=threads) for name in wanted}
        return {name: self.answers[name].calibration.apply(found[name]) for name in names}

    def names(self, tasks: Sequence[str] | None) -> list[str]:
        """The asked-for tasks, all of them for None, checked."""
        for name in tasks or ():
            if name not in self.answers:
                message = f"This model has no target '{name}'.{suggest(name, self.answers)}"
                raise RequestError(message)
        return list(self.answers) if tasks is None else list(tasks)

    def to_files(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The JSON part, for `run.json`, and the tensors, for `model.safetensors`."""
        tensors: dict[str, Tensor] = {}
        networks = []
        for number, network in enumerate(self.networks):
            networks.append(
                {"shape": network.shape.to_dict(), "tasks": list(network.model.tasks), "answers": list(network.answers)}
            )
            tensors |= {f"network.{number}.{name}": value for name, value in network.model.state_dict().items()}
        tensors |= {f"trees.{name}": as_tensor(trees.to_bytes()) for name, trees in self.trees.items()}
        document = {
            "features": self.encoder.to_dict(),
            "tasks": [answer.task.to_dict() for answer in self.answers.values()],
            "networks": networks,
            "serving": {
                name: {
                    "served_by": answer.served_by,
                    "calibration": answer.calibration.to_dict(),
                    "interval": None if answer.interval is None else answer.interval.to_dict(),
                }
                for name, answer in self.answers.items()
            },
        }
        return document, tensors

    @classmethod
    def from_files(cls, document: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> "Served":
        """Reads what `to_files` gave."""
        answers = {}
        for data in document["tasks"]:
            task, serving = task_from_dict(data), document["serving"][data["name"]]
            interval = None if serving["interval"] is None else Interval.from_dict(serving["interval"])
            calibration = Calibration.from_dict(serving["calibration"])
            answers[task.name] = Answer(task, serving["served_by"], calibration, interval)
        networks = []
        for number, data in enumerate(document["networks"]):
            shape = NetworkShape.from_dict(data["shape"])
            model = shape.build([answers[name].task for name in data["tasks"]])
            prefix = f"network.{number}."
            model.load_state_dict(
                {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
            )
            networks.append(ServedNetwork(model.eval(), shape, tuple(data["answers"])))
        trees = {
            name: Boosting.from_bytes(answer.task, tensors[f"trees.{name}"].numpy().tobytes())
            for name, answer in answers.items()
            if answer.served_by == "own_lightgbm"
        }
        return cls(FeatureEncoder.from_dict(document["features"]), answers, tuple(networks), trees)
