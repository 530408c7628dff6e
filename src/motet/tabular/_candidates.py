"""The candidates of one fit: the shared network, each target's own network, and each target's trees."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from motet.tabular._boosting import WIDE, Boosting, TreeSettings
from motet.tabular._catboost import CatBoostTrees
from motet.tabular._linear import Penalties, fit_linear
from motet.tabular._network import TrainedNetwork, loop_for, network_estimates, shape_for, train_network
from motet.tabular._own_trees import Grown, TreesBeside, work_file
from motet.tabular._prepared import Prepared
from motet.tasks import Task
from motet.train import Clock, Cost, Emit

NETWORK_THREADS = 4  # of torch at most, where there are processors to spare: more wait for each other
JUDGED = ("shared", "own_network", "own_lightgbm", "own_catboost", "own_linear")
OWN_SLACK = 1.25  # own networks stop by rows; the clock is only there for a machine that has become slower


@dataclass
class Candidates:
    """What was trained, what it answered on the held-out rows, and what it cost.

    Args:
        rows: numbers of the held-out rows, choose before test.
        estimates: by candidate and task, for `rows`.
        networks: the shared network under "", own networks under their task's name.
        trees: by task.
        catboost: by task, where CatBoost was tried.
        linear: the linear models of all targets, or None.
        distilled: the small network that was taught by the others, or None.
        costs: by candidate.
        notes: what a reader should know.
        ways: by task, how its trees grew.
        trials: what was tried on the way: name, score and cost.
        folds: what was trained on other cuts of the rows; the answer is the mean over these and this.
    """

    rows: np.ndarray
    estimates: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    networks: dict[str, TrainedNetwork] = field(default_factory=dict)
    trees: dict[str, Boosting] = field(default_factory=dict)
    catboost: dict[str, CatBoostTrees] = field(default_factory=dict)
    linear: TrainedNetwork | None = None
    distilled: TrainedNetwork | None = None
    costs: dict[str, Cost] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    ways: dict[str, TreeSettings] = field(default_factory=dict)
    trials: list[dict[str, Any]] = field(default_factory=list)
    folds: "tuple[Candidates, ...]" = ()

    @property
    def judged(self) -> tuple[str, ...]:
        """The candidates that may serve, but for the distilled network."""
        return tuple(name for name in JUDGED if name in self.estimates)

    def trees_of(self, candidate: str) -> Mapping[str, Boosting | CatBoostTrees]:
        """The trees by task of a candidate that is made of trees; of another none."""
        return {"own_lightgbm": self.trees, "own_catboost": self.catboost}.get(candidate, {})

    def network(self, candidate: str, task: str) -> TrainedNetwork:
        """The network that answers a task as this candidate; with one target the shared one is its own too."""
        if candidate == "distilled" and self.distilled is not None:
            return self.distilled
        if candidate == "own_linear" and self.linear is not None:
            return self.linear
        return self.networks[task if candidate == "own_network" and task in self.networks else ""]

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
        own_networks: whether each target gets a network of its own too.
        least_batch: rows of a step of a network at least.
        ways: by task, the ways in which its trees are to grow, of which the better is kept; None for the one of all.
        catboost: whether CatBoost is a candidate on small tables.
        penalties: of each target's linear model; None where linear models are no candidates.
    """

    balance: str
    sharing: str
    sharing_settings: Mapping[str, Any] | None
    max_epochs: int | None
    seed: int
    threads: int
    device: torch.device
    work: Path | None
    own_networks: bool = True
    least_batch: int = 32
    ways: Mapping[str, Sequence[TreeSettings]] | None = None
    catboost: bool = False
    penalties: Penalties | None = None


def train_candidates(prepared: Prepared, plan: Plan, *, clock: Clock, emit: Emit) -> Candidates:
    """Trains everything that may serve a target, within the time of `clock`.

    The trees, which are what a target falls back on, grow beside the networks, on all processors but one where there
    are several. The time is halved between the shared network and the own networks, if there are any, which
    together get the rows, and so the compute, that the shared one used.
    """
    # A setting that cannot be is found before anything is trained.
    shape_for(prepared, plan.sharing, plan.sharing_settings).build(prepared.tasks)
    found = Candidates(np.concatenate([prepared.split.choose, prepared.split.test]))
    beside = _tree_threads(plan.threads, len(prepared.tasks))
    text = "Training LightGBM for each target as the outside reference"
    emit({"event": "stage", "stage": "own_lightgbm", "text": text})
    trees = TreesBeside(
        prepared, found.rows, seed=plan.seed, threads=beside, work=plan.work, clock=clock.part(0.9), emit=emit,
        settings=plan.ways or {task.name: (WIDE,) for task in prepared.tasks},
    )  # fmt: skip
    with trees, _torch_threads(max(1, plan.threads - beside)):
        if plan.penalties is not None:
            linear = found.linear = fit_linear(prepared, plan.penalties)
            found.costs["own_linear"] = linear.trained.cost
            found.estimates["own_linear"] = network_estimates(linear, prepared, found.rows)
        _train_networks(prepared, plan, clock, trees.telling(emit), found)
        _keep_trees(found, trees.collect())
    return found


def _keep_trees(found: Candidates, grown: Sequence[Grown]) -> None:
    """The better trees of each task."""
    for one in best_ways(grown):
        name = one.task.name
        found.trees[name], found.ways[name] = one.trees, one.settings
        found.estimates.setdefault("own_lightgbm", {})[name] = one.estimates
    found.costs["own_lightgbm"] = sum((one.cost for one in grown), Cost())
    for one in grown if len(grown) > len(found.trees) else ():
        found.trials.append({
            "candidate": "own_lightgbm", "task": one.task.name, "name": one.settings.name, "score": one.score,
            "seconds": one.cost.seconds, "kept": found.ways[one.task.name] == one.settings,
        })  # fmt: skip


def best_ways(grown: Sequence[Grown]) -> list[Grown]:
    """For each task the trees with the best stop score, where one task's few rows count as much as all tasks' mean.

    With so few stop rows as small tables have, one score is half luck: a task takes the other way if its own relative
    gain by it and the mean gain over tasks add up to more than nothing.
    """
    by_task: dict[str, list[Grown]] = {}
    for one in grown:
        by_task.setdefault(one.task.name, []).append(one)
    gains = {name: [_gain(one, ways[0]) for one in ways] for name, ways in by_task.items()}
    means = np.mean(list(gains.values()), axis=0)
    return [ways[int(np.argmax(gains[name] + means))] for name, ways in by_task.items()]


def _gain(one: Grown, first: Grown) -> float:
    """How much better the stop score is, in relative terms; nothing where either is not known."""
    if one.score is None or first.score is None or first.score == 0:
        return 0.0
    return (one.score - first.score) / abs(first.score) * (1.0 if one.task.higher_is_better else -1.0)


def _tree_threads(threads: int, num_tasks: int) -> int:
    """The processors of the trees: no network of a table's size gains by more than a few."""
    return max(1, min(threads - 1, max(num_tasks, threads - NETWORK_THREADS)))


@contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _train_networks(prepared: Prepared, plan: Plan, clock: Clock, emit: Emit, found: Candidates) -> None:
    emit({"event": "stage", "stage": "shared", "text": f"Training one network for {len(prepared.tasks)} targets"})
    part = clock.part(0.48 if plan.own_networks else 0.96)
    shared = _network(prepared, prepared.tasks, plan, clock=part, emit=emit, stage="shared", max_rows=None)
    found.networks[""] = shared
    found.costs["shared"] = shared.trained.cost
    found.estimates["shared"] = network_estimates(shared, prepared, found.rows)
    if shared.trained.ended == "time":
        found.notes.append(
            f"The time limit ended the shared network's training after {shared.trained.epochs:.1f} epochs; "
            "the learning rate had come down to zero by then."
        )
    if plan.own_networks:
        _train_own_networks(prepared, plan, clock, emit, found)


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
        settings=loop_for(
            int(labelled.sum()), max_epochs=plan.max_epochs, seed=plan.seed, least_batch=plan.least_batch
        ),
        clock=clock,
        stage=stage,
        emit=emit,
        device=plan.device,
        checkpoint=work_file(prepared.tasks, plan.work, stage),
        max_rows=max_rows,
    )
