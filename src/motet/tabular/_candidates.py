"""The candidates of one fit: the shared network, each target's own network, and each target's trees."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from motet.tabular._boosting import Boosting, BoostingRows
from motet.tabular._network import TrainedNetwork, loop_for, network_estimates, shape_for, train_network
from motet.tabular._prepared import Prepared
from motet.tasks import Task
from motet.train import Clock, Cost, Emit, Meter, read_tensors, write_tensors

OWN_SLACK = 1.25  # own networks stop by rows; the clock is only there for a machine that has become slower


@dataclass
class Candidates:
    """What was trained, what it answered on the held-out rows, and what it cost.

    Args:
        rows: numbers of the held-out rows, choose before test.
        estimates: by candidate and task, for `rows`.
        networks: the shared network under "", own networks under their task's name.
        trees: by task.
        costs: by candidate.
        notes: what a reader should know.
    """

    rows: np.ndarray
    estimates: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    networks: dict[str, TrainedNetwork] = field(default_factory=dict)
    trees: dict[str, Boosting] = field(default_factory=dict)
    costs: dict[str, Cost] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def start(self, candidate: str) -> None:
        """Makes room for a candidate that is trained task by task."""
        self.costs[candidate] = Cost()
        self.estimates[candidate] = {}


@dataclass(frozen=True)
class Plan:
    """How the candidates are to be trained.

    Args:
        balance: the balancing method of the shared network.
        sharing: its sharing architecture; own networks have none.
        sharing_settings: the architecture's settings, None for its defaults.
        max_epochs: of every network, or None to suit the table.
        seed: of everything.
        threads: processor threads of the trees.
        device: of the networks.
        work: folder for checkpoints, or None.
    """

    balance: str
    sharing: str
    sharing_settings: Mapping[str, Any] | None
    max_epochs: int | None
    seed: int
    threads: int
    device: torch.device
    work: Path | None


def train_candidates(prepared: Prepared, plan: Plan, *, clock: Clock, emit: Emit) -> Candidates:
    """Trains everything that may serve a target, within the time of `clock`.

    The trees come first and take at most six tenths, since they are what a target falls back on. What is left is
    halved between the shared network and the own networks, which together get the rows, and so the compute, that the
    shared one used.
    """
    # A setting that cannot be is found before anything is trained.
    shape_for(prepared, plan.sharing, plan.sharing_settings).build(prepared.tasks)
    found = Candidates(np.concatenate([prepared.split.choose, prepared.split.test]))
    _train_trees(prepared, plan, clock.part(0.6), emit, found)
    emit({"event": "stage", "stage": "shared", "text": f"Training one network for {len(prepared.tasks)} targets"})
    shared = _network(prepared, prepared.tasks, plan, clock=clock.part(0.48), emit=emit, stage="shared", max_rows=None)
    found.networks[""] = shared
    found.costs["shared"] = shared.trained.cost
    found.estimates["shared"] = network_estimates(shared, prepared, found.rows)
    if shared.trained.ended == "time":
        found.notes.append(
            f"The time limit ended the shared network's training after {shared.trained.epochs:.1f} epochs; "
            "the learning rate had come down to zero by then."
        )
    _train_own_networks(prepared, plan, clock, emit, found)
    return found


def _train_own_networks(prepared: Prepared, plan: Plan, clock: Clock, emit: Emit, found: Candidates) -> None:
    shared = found.networks[""].trained
    found.start("own_network")
    if len(prepared.tasks) == 1:
        # With one target the shared network is that target's own network.
        found.estimates["own_network"] = dict(found.estimates["shared"])
        found.notes.append("There is one target, so the shared network and its own network are the same one.")
        return
    emit({"event": "stage", "stage": "own_network", "text": "Training each target's own network with the same compute"})
    for task in prepared.tasks:
        share = shared.cost.seconds / len(prepared.tasks)
        own_clock = Clock(None if clock.limit is None else min(share * OWN_SLACK, clock.left))
        stage = f"own_network:{task.name}"
        max_rows = max(1, shared.cost.rows // len(prepared.tasks))
        own = _network(prepared, [task], plan, clock=own_clock, emit=emit, stage=stage, max_rows=max_rows)
        found.networks[task.name] = own
        found.costs["own_network"] += own.trained.cost
        found.estimates["own_network"] |= network_estimates(own, prepared, found.rows)


def _network(
    prepared: Prepared,
    tasks: Sequence[Task],
    plan: Plan,
    *,
    clock: Clock,
    emit: Emit,
    stage: str,
    max_rows: int | None,
) -> TrainedNetwork:
    labelled = np.zeros(len(prepared.split.train), dtype=bool)
    for task in tasks:
        labelled |= prepared.targets(task, prepared.split.train)[1]
    return train_network(
        prepared,
        tasks,
        shape=shape_for(prepared, plan.sharing, plan.sharing_settings) if stage == "shared" else shape_for(prepared),
        balance=plan.balance,
        settings=loop_for(int(labelled.sum()), max_epochs=plan.max_epochs, seed=plan.seed),
        clock=clock,
        stage=stage,
        emit=emit,
        device=plan.device,
        checkpoint=None if plan.work is None else plan.work / f"{_file_name(prepared, stage)}.safetensors",
        max_rows=max_rows,
    )


def _train_trees(prepared: Prepared, plan: Plan, clock: Clock, emit: Emit, found: Candidates) -> None:
    emit(
        {
            "event": "stage",
            "stage": "own_lightgbm",
            "text": "Training LightGBM for each target as the outside reference",
        }
    )
    found.start("own_lightgbm")
    held_out = prepared.matrix(found.rows)
    for number, task in enumerate(prepared.tasks):
        stage = f"own_lightgbm:{task.name}"
        path = None if plan.work is None else plan.work / f"{_file_name(prepared, stage)}.safetensors"
        if path is not None and path.is_file():
            tensors, metadata = read_tensors(path)
            trees, cost = (
                Boosting.from_bytes(task, tensors["trees"].numpy().tobytes()),
                Cost(**json.loads(metadata["cost"])),
            )
        else:
            trees, cost = _fit_trees(prepared, task, plan, clock.part(_share(len(prepared.tasks) - number)))
            if path is not None:
                write_tensors(path, {"trees": as_tensor(trees.to_bytes())}, {"cost": json.dumps(asdict(cost))})
        found.trees[task.name] = trees
        found.costs["own_lightgbm"] += cost
        found.estimates["own_lightgbm"][task.name] = trees.estimate(held_out, threads=plan.threads)
        stop_score = _stop_score(prepared, task, trees, plan.threads)
        emit({"event": "evaluate", "stage": stage, "step": 0, "epoch": 0.0, "seconds": round(cost.seconds, 2),
              "losses": {}, "scores": {task.name: stop_score}, "better": [task.name]})  # fmt: skip


def _share(left: int) -> float:
    """What one of so many targets may take of the time: more than its part, since most end early by themselves."""
    return 1.5 / (left + 0.5)


def _fit_trees(prepared: Prepared, task: Task, plan: Plan, clock: Clock) -> tuple[Boosting, Cost]:
    parts = []
    for rows in (prepared.split.train, prepared.split.stop):
        targets, present = prepared.targets(task, rows)
        parts.append(BoostingRows(prepared.matrix(rows[present]), targets, len(prepared.encoder.category_names)))
    meter = Meter()
    trees, rows_passed = Boosting.fit(task, *parts, seed=plan.seed, clock=clock, threads=plan.threads)
    return trees, meter.read(rows_passed)


def _stop_score(prepared: Prepared, task: Task, trees: Boosting, threads: int) -> float | None:
    targets, present = prepared.targets(task, prepared.split.stop)
    if not len(targets):
        return None
    estimates = trees.estimate(prepared.matrix(prepared.split.stop[present]), threads=threads)
    score = float(task.score(estimates, targets)[0])
    return round(score, 6) if np.isfinite(score) else None


def _file_name(prepared: Prepared, stage: str) -> str:
    kind, _, name = stage.partition(":")
    return f"{kind}-{[task.name for task in prepared.tasks].index(name)}" if name else kind


def as_tensor(data: bytes) -> Tensor:
    """Bytes as a uint8 tensor, so that they fit into safetensors."""
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)
