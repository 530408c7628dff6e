"""The served model: what a finished run keeps to answer, and its form on disk."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from motet._errors import RequestError, suggest
from motet.data import FeatureEncoder, Features, TableRows
from motet.models import MultiTaskModel
from motet.tabular._blend import mixed
from motet.tabular._boosting import Boosting
from motet.tabular._candidates import Candidates
from motet.tabular._catboost import CatBoostTrees
from motet.tabular._halves import stored
from motet.tabular._network import NetworkShape, TrainedNetwork
from motet.tabular._outcome import Outcome
from motet.tabular._own_trees import as_tensor
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
        served_by: `shared`, `own_network`, `own_lightgbm`, `own_catboost`, `own_linear`, `distilled` or `blend`.
        shares: how much each candidate gives to the answer.
        calibration: applied to the answer.
        interval: gives bounds around a number, or None.
    """

    task: Task
    served_by: str
    shares: Mapping[str, float]
    calibration: Calibration
    interval: Interval | None


@dataclass(frozen=True)
class ServedNetwork:
    """One network in one state, the tasks that it answers, and as which candidate."""

    model: MultiTaskModel
    shape: NetworkShape
    answers: tuple[str, ...]
    candidate: str


@dataclass(frozen=True)
class Fold:
    """What was trained on another cut of a small table's rows, and answers beside the first.

    Args:
        networks: as of `Served`.
        trees: as of `Served`.
        catboost: as of `Served`.
    """

    networks: tuple[ServedNetwork, ...]
    trees: dict[str, Boosting]
    catboost: dict[str, CatBoostTrees] = field(default_factory=dict)


@dataclass(frozen=True)
class Served:
    """Everything that answers.

    Args:
        encoder: of the features.
        answers: how each task is answered.
        networks: that serve some task.
        trees: by task, where they serve.
        folds: what was trained on other cuts of the rows; estimates are the mean over these and the first.
        catboost: CatBoost's trees by task, where they serve.
    """

    encoder: FeatureEncoder
    answers: dict[str, Answer]
    networks: tuple[ServedNetwork, ...]
    trees: dict[str, Boosting]
    folds: tuple[Fold, ...] = ()
    catboost: dict[str, CatBoostTrees] = field(default_factory=dict)

    @property
    def first(self) -> Fold:
        """What was trained on the table's own split."""
        return Fold(self.networks, self.trees, self.catboost)

    @classmethod
    def from_candidates(cls, encoder: FeatureEncoder, outcomes: Sequence[Outcome], found: Candidates) -> "Served":
        """Keeps of the candidates only what serves some task."""
        answers = {
            outcome.task.name: Answer(
                outcome.task,
                outcome.served_by,
                _shares(outcome, alone=len(outcomes) == 1),
                outcome.calibration,
                outcome.interval,
            )
            for outcome in outcomes
        }
        first, *others = (_serving(answers, part) for part in (found, *found.folds))
        return cls(encoder, answers, first.networks, first.trees, tuple(others), first.catboost)

    def estimate(self, frame: pl.DataFrame, tasks: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Calibrated estimates of the asked-for tasks for every row of a table; only what they need is computed."""
        names = self.names(tasks)
        with _threads_for(frame.height):
            return self._estimate(frame, names)

    def _estimate(self, frame: pl.DataFrame, names: Sequence[str]) -> dict[str, np.ndarray]:
        features = self.encoder.transform(frame)
        parts = [self._raw(part, features, names) for part in (self.first, *self.folds)]
        return {
            name: self.answers[name].calibration.apply(np.mean([part[name] for part in parts], axis=0))
            if len(parts) > 1
            else self.answers[name].calibration.apply(parts[0][name])
            for name in names
        }

    def _raw(self, part: Fold, features: Features, names: Sequence[str]) -> dict[str, np.ndarray]:
        """One fold's estimates before calibration."""
        found: dict[str, dict[str, np.ndarray]] = {name: {} for name in names}
        rows = TableRows(features, {}, {})
        for network in part.networks:
            if wanted := [name for name in network.answers if name in found]:
                for name, values in estimate(network.model, rows, np.arange(len(features)), wanted).items():
                    found[name][network.candidate] = values
        for candidate, trees in (("own_lightgbm", part.trees), ("own_catboost", part.catboost)):
            if wanted := [name for name in trees if name in found]:
                matrix = join(features)
                threads = torch.get_num_threads()
                for name in wanted:
                    found[name][candidate] = trees[name].estimate(matrix, threads=threads)
        return {name: mixed(found[name], self.answers[name].shares) for name in names}

    def names(self, tasks: Sequence[str] | None) -> list[str]:
        """The asked-for tasks, all of them for None, checked."""
        for name in tasks or ():
            if name not in self.answers:
                message = f"This model has no target '{name}'.{suggest(name, self.answers)}"
                raise RequestError(message)
        return list(self.answers) if tasks is None else list(tasks)

    def to_files(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The JSON part, for `run.json`, and the tensors, for `model.safetensors`."""
        networks, tensors = _fold_files(self.first, "")
        folds = []
        for number, fold in enumerate(self.folds):
            described, more = _fold_files(fold, f"fold.{number}.")
            folds.append({"networks": described})
            tensors |= more
        document = {
            "features": self.encoder.to_dict(),
            "tasks": [answer.task.to_dict() for answer in self.answers.values()],
            "networks": networks,
            "folds": folds,
            "serving": {
                name: {
                    "served_by": answer.served_by,
                    "shares": dict(answer.shares),
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
            # Runs from before blends name no shares, and their networks no candidate: each answer had one model.
            shares = serving.get("shares", {serving["served_by"]: 1.0})
            answers[task.name] = Answer(task, serving["served_by"], shares, calibration, interval)
        first = _fold_read(document["networks"], tensors, "", answers)
        folds = [
            _fold_read(data["networks"], tensors, f"fold.{number}.", answers)
            for number, data in enumerate(document.get("folds", ()))
        ]
        encoder = FeatureEncoder.from_dict(document["features"])
        return cls(encoder, answers, first.networks, first.trees, tuple(folds), first.catboost)


def _serving(answers: Mapping[str, Answer], found: Candidates) -> Fold:
    """What of the candidates of one cut of the rows serves some task."""
    networks = []
    for key, candidate, network in _trained(found):
        wanted = {name for name, answer in answers.items() if candidate in answer.shares and key in ("", name)}
        for state, names in network.distinct():
            if serving := tuple(name for name in names if name in wanted):
                model = network.shape.build(network.tasks)
                model.load_state_dict(state)
                networks.append(ServedNetwork(model.eval(), network.shape, serving, candidate))
    trees = {name: found.trees[name] for name, answer in answers.items() if "own_lightgbm" in answer.shares}
    others = {name: found.catboost[name] for name, answer in answers.items() if "own_catboost" in answer.shares}
    return Fold(tuple(networks), trees, others)


def _fold_files(fold: Fold, prefix: str) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """The networks as JSON data, and all tensors under names that begin with the prefix."""
    tensors: dict[str, Tensor] = {}
    networks = []
    for number, network in enumerate(fold.networks):
        networks.append(
            {
                "shape": network.shape.to_dict(),
                "tasks": list(network.model.tasks),
                "answers": list(network.answers),
                "candidate": network.candidate,
            }
        )
        state = network.model.state_dict()
        tensors |= {f"{prefix}network.{number}.{name}": stored(value) for name, value in state.items()}
    tensors |= {f"{prefix}trees.{name}": as_tensor(trees.to_bytes()) for name, trees in fold.trees.items()}
    tensors |= {f"{prefix}catboost.{name}": as_tensor(trees.to_bytes()) for name, trees in fold.catboost.items()}
    return networks, tensors


def _fold_read(
    described: Sequence[Mapping[str, Any]], tensors: Mapping[str, Tensor], prefix: str, answers: Mapping[str, Answer]
) -> Fold:
    """Reads what `_fold_files` gave."""
    networks = []
    for number, data in enumerate(described):
        shape = NetworkShape.from_dict(data["shape"])
        model = shape.build([answers[name].task for name in data["tasks"]])
        start = f"{prefix}network.{number}."
        model.load_state_dict(
            {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}
        )
        candidate = data.get("candidate") or answers[data["answers"][0]].served_by
        networks.append(ServedNetwork(model.eval(), shape, tuple(data["answers"]), candidate))
    trees = {
        name: Boosting.from_bytes(answer.task, tensors[f"{prefix}trees.{name}"].numpy().tobytes())
        for name, answer in answers.items()
        if "own_lightgbm" in answer.shares
    }
    others = {
        name: CatBoostTrees.from_bytes(answer.task, tensors[f"{prefix}catboost.{name}"].numpy().tobytes())
        for name, answer in answers.items()
        if "own_catboost" in answer.shares
    }
    return Fold(tuple(networks), trees, others)


def _trained(found: Candidates) -> list[tuple[str, str, TrainedNetwork]]:
    """Every network with the task that it is for, "" for all, and as which candidate it answers."""
    networks = [(key, "own_network" if key else "shared", network) for key, network in found.networks.items()]
    others = (("own_linear", found.linear), ("distilled", found.distilled))
    return [*networks, *(("", name, network) for name, network in others if network is not None)]


def _shares(outcome: Outcome, *, alone: bool) -> dict[str, float]:
    """The outcome's shares; with one target the shared network is its own network, and is kept once."""
    shares = dict(outcome.shares)
    if alone and "own_network" in shares:
        shares["shared"] = shares.get("shared", 0.0) + shares.pop("own_network")
    return shares
