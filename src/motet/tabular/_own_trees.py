"""Each target's trees, trained beside the networks on processors of their own."""

import json
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from motet._errors import require
from motet.tabular._boosting import Boosting, BoostingRows, TreeSettings
from motet.tabular._prepared import Prepared
from motet.tasks import Task
from motet.train import Clock, Cost, Emit, Meter, read_tensors, write_tensors


@dataclass(frozen=True)
class Grown:
    """One task's trees.

    Args:
        task: whose they are.
        settings: how they grew.
        trees: the model.
        cost: of their training.
        score: the main metric on the stop rows, or None.
        estimates: for the rows that were asked about.
    """

    task: Task
    settings: TreeSettings
    trees: Boosting
    cost: Cost
    score: float | None
    estimates: np.ndarray


class TreesBeside:
    """Trains the trees of all tasks in threads of their own, from entering to leaving.

    LightGBM lets go of Python while it works, and two trainings on a processor each take half the time of one after
    the other on both: its threads wait for each other at every split.

    Args:
        prepared: the rows.
        rows: numbers of the held-out rows to answer for.
        seed: of the trees.
        threads: processors for them all.
        work: folder where finished trees are kept, or None.
        settings: by task, the ways in which its trees are to grow; one after the other where there are several.
        clock: the time that there is for all of them.
        emit: takes the records of the log.
    """

    def __init__(
        self,
        prepared: Prepared,
        rows: np.ndarray,
        *,
        seed: int,
        threads: int,
        work: Path | None,
        settings: Mapping[str, Sequence[TreeSettings]],
        clock: Clock,
        emit: Emit,
    ) -> None:
        require("lightgbm", "tables")
        self.prepared, self.seed, self.work, self.emit = prepared, seed, work, emit
        self.clock = Clock(clock.limit, clock.spent, clock.started)  # to be stopped by itself
        self.settings, self.jobs = settings, _jobs(prepared.tasks, settings)
        self.workers = max(1, min(threads, len(prepared.tasks)))
        self.threads = max(1, threads // self.workers)
        self.held_out = prepared.matrix(rows)
        self._pool = ThreadPoolExecutor(self.workers, thread_name_prefix="trees")
        self._futures: list[Future[Grown]] = []

    def __enter__(self) -> Self:
        jobs = self.jobs
        self._futures = [self._pool.submit(self._grow, *job, len(jobs) - place) for place, job in enumerate(jobs)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clock.stop()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def telling(self, emit: Emit) -> Emit:
        """The same, but for what went wrong with the trees: it is raised at the next record, not at the end."""

        def tell(record: Mapping[str, Any]) -> None:
            for future in self._futures:
                if future.done():
                    future.result()
            emit(record)

        return tell

    def collect(self) -> list[Grown]:
        """What came out for each task and way of growing; waits for it."""
        return [future.result() for future in self._futures]

    def _grow(self, task: Task, settings: TreeSettings, left: int) -> Grown:
        stage, place = f"own_lightgbm:{task.name}", self.settings[task.name].index(settings)
        file = f"own_lightgbm_{settings.name}:{task.name}" if place else stage
        path = work_file(self.prepared.tasks, self.work, file)
        if path is not None and path.is_file():
            tensors, metadata = read_tensors(path)
            trees = Boosting.from_bytes(task, tensors["trees"].numpy().tobytes())
            cost = Cost(**json.loads(metadata["cost"]))
        else:
            trees, cost = self._fit(task, settings, self.clock.part(_share(left / self.workers)))
            if self.clock.stopped.is_set():
                raise CancelledError  # cut short: a resumed fit must not find them
            if path is not None:
                write_tensors(path, {"trees": as_tensor(trees.to_bytes())}, {"cost": json.dumps(asdict(cost))})
        score = self._stop_score(task, trees)
        self.emit({"event": "evaluate", "stage": stage, "step": place, "epoch": float(place),
                   "seconds": round(cost.seconds, 2), "losses": {}, "scores": {task.name: score},
                   "better": [task.name]})  # fmt: skip
        return Grown(task, settings, trees, cost, score, trees.estimate(self.held_out, threads=self.threads))

    def _fit(self, task: Task, settings: TreeSettings, clock: Clock) -> tuple[Boosting, Cost]:
        prepared = self.prepared
        parts: list[BoostingRows] = []
        for rows in (prepared.split.train, prepared.split.stop):
            targets, present = prepared.targets(task, rows)
            parts.append(BoostingRows(prepared.matrix(rows[present]), targets, len(prepared.encoder.category_names)))
        meter = Meter()
        trees, rows_passed = Boosting.fit(
            task, *parts, seed=self.seed, clock=clock, threads=self.threads, settings=settings
        )
        return trees, meter.read(rows_passed)

    def _stop_score(self, task: Task, trees: Boosting) -> float | None:
        targets, present = self.prepared.targets(task, self.prepared.split.stop)
        if not len(targets):
            return None
        matrix = self.prepared.matrix(self.prepared.split.stop[present])
        score = float(task.score(trees.estimate(matrix, threads=self.threads), targets)[0])
        return round(score, 6) if np.isfinite(score) else None


def _jobs(tasks: Sequence[Task], settings: Mapping[str, Sequence[TreeSettings]]) -> list[tuple[Task, TreeSettings]]:
    """Every training: first each task's first way, then each task's second."""
    jobs = [(place, task, one) for task in tasks for place, one in enumerate(settings[task.name])]
    return [(task, one) for _, task, one in sorted(jobs, key=lambda job: job[0])]


def _share(rounds: float) -> float:
    """What one of so many rounds of tasks may take of the time: more than its part, since most end by themselves."""
    return min(1.0, 1.5 / (math.ceil(rounds) + 0.5))


def work_file(tasks: Sequence[Task], work: Path | None, stage: str) -> Path | None:
    """Where a training keeps what it has so far."""
    if work is None:
        return None
    kind, _, name = stage.partition(":")
    place = f"{kind}-{[task.name for task in tasks].index(name)}" if name else kind
    return work / f"{place}.safetensors"


def as_tensor(data: bytes) -> Tensor:
    """Bytes as a uint8 tensor, so that they fit into safetensors."""
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)
