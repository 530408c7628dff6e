"""One cell: one method on one problem with one seed, trained and measured."""

import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from motet._errors import MotetError, RunError
from motet.balance import FAMO, Balancer
from motet.bench._balancing import BALANCE, METHOD_RATE, tell_length
from motet.bench._comparison import Comparison
from motet.bench._gains import SINGLE
from motet.bench._problem import Problem, Rows
from motet.models import MultiTaskModel

ROWS_AT_ONCE = 1000


@dataclass(frozen=True)
class Budget:
    """How much a cell may cost.

    Args:
        name: `quick`, `full` or `long`.
        share: of the schedule's steps that are taken.
        seconds: of the processor; after so many a cell ends without a score.
    """

    name: str
    share: float
    seconds: float


BUDGETS = {
    budget.name: budget
    for budget in (Budget("quick", 0.05, 60.0), Budget("full", 1.0, 240.0), Budget("long", 10.0, 2400.0))
}


class OutOfTimeError(MotetError, RuntimeError):
    """A cell took longer than its budget allows."""


@dataclass
class Stopwatch:
    """Adds up the numbers trained and the seconds of training alone, and stops it when there are too many of those.

    Args:
        limit: seconds of the processor, which other work on the machine does not lengthen.
    """

    limit: float
    wall: float = 0.0
    cpu: float = 0.0
    parameters: int = 0

    def add(self, wall: float, cpu: float) -> None:
        """Counts one step.

        Raises:
            OutOfTimeError: the limit is passed.
        """
        self.wall, self.cpu = self.wall + wall, self.cpu + cpu
        if self.cpu > self.limit:
            message = f"Training took more than {self.limit:g} s, the most that a cell of this budget may take."
            raise OutOfTimeError(message)


def run_cell(
    problem: Problem, method: str, seed: int, budget: Budget, comparison: Comparison = BALANCE
) -> dict[str, Any]:
    """Trains and measures; what fails is a result too.

    Args:
        problem: what to learn.
        method: a name of `contenders`; `single` trains a network of the same shape for each task alone.
        seed: of the first weights, of the order of rows and of dropout.
        budget: how many steps, and the seconds there are.
        comparison: what the method is one of.

    Returns:
        status (`done`, `failed` or `out of time`), each task's score, how many numbers were trained, and the seconds
        that training took.
    """
    watch = Stopwatch(budget.seconds)
    scores: dict[str, float] = {}
    outcome = {"status": "done"}
    try:
        scores = _scores(problem, method, seed, budget, watch, comparison)
    except OutOfTimeError as error:
        outcome = {"status": "out of time", "error": str(error)}
    except (MotetError, RuntimeError, ArithmeticError) as error:
        # A method that breaks on a problem is a finding of the comparison, not the end of it.
        outcome = {"status": "failed", "error": f"{type(error).__name__}: {error}"}
    return {
        "problem": problem.name, "method": method, "seed": seed, "budget": budget.name, **outcome, "scores": scores,
        "parameters": watch.parameters, "wall_seconds": round(watch.wall, 3),
        "cpu_seconds": round(watch.cpu, 3),
    }  # fmt: skip


def _scores(
    problem: Problem, method: str, seed: int, budget: Budget, watch: Stopwatch, comparison: Comparison
) -> dict[str, float]:
    groups = [[task] for task in problem.tasks] if method == SINGLE else [list(problem.tasks)]
    scores: dict[str, float] = {}
    for tasks in groups:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            training = Training(problem, *comparison.build(problem, tasks, method), seed)
            watch.parameters += sum(part.numel() for part in training.model.parameters())
            training.run(budget, watch)
            scores |= training.scores()
    for task, score in scores.items():
        if not math.isfinite(score):
            message = f"Task '{task}' has a score of {score}; a finite one was expected. Its outputs are not numbers."
            raise RunError(message)
    return scores


class Training:
    """One network on its way through a problem's schedule: the same for every method.

    Args:
        problem: rows and schedule.
        model: a network for some of the problem's tasks.
        balancer: how its losses are balanced.
        seed: of the order of rows.
    """

    def __init__(self, problem: Problem, model: MultiTaskModel, balancer: Balancer, seed: int) -> None:
        self.problem, self.model, self.balancer = problem, model, balancer
        self.balancer.add_tasks(tuple(model.tasks))
        own = list(self.balancer.parameters())
        groups = [{"params": list(model.parameters())}, *([{"params": own}] if own else [])]
        self.optimizer = torch.optim.Adam(groups, fused=True)
        self.generator = torch.Generator().manual_seed(seed)

    def run(self, budget: Budget, watch: Stopwatch) -> None:
        """Takes the budget's share of the schedule's steps."""
        schedule, rows = self.problem.schedule, self.problem.train
        total = max(2, round(budget.share * schedule.steps(len(rows))))
        per_epoch = max(1, len(rows) // schedule.batch_size)
        tell_length(self.balancer, total)
        self.model.train()
        order = torch.arange(0)
        for step in range(total):
            if step % per_epoch == 0:
                order = torch.randperm(len(rows), generator=self.generator)
            start = step % per_epoch * schedule.batch_size
            share = 1.0 - step / total
            for group, rate in zip(
                self.optimizer.param_groups, (schedule.rate(step, total), METHOD_RATE * share), strict=False
            ):
                group["lr"] = rate
            batch = rows.take(order[start : start + schedule.batch_size])
            wall, cpu = time.perf_counter(), time.process_time()
            self._step(batch)
            watch.add(time.perf_counter() - wall, time.process_time() - cpu)

    @torch.inference_mode()
    def scores(self) -> dict[str, float]:
        """Each task's measure on the test rows."""
        self.model.eval()
        rows, found = self.problem.test, dict[str, float]()
        pieces = [self.model(rows.take(places).inputs) for places in torch.arange(len(rows)).split(ROWS_AT_ONCE)]
        for name, task in self.model.tasks.items():
            outputs = torch.cat([piece[name] for piece in pieces])
            known, metric = rows.known(name), self.problem.metric
            measures = task.metrics(task.estimate(outputs[known]).numpy(), rows.targets[name][known].numpy())
            found[name] = float(measures[metric if isinstance(metric, str) else metric[name]])
        return found

    def _step(self, batch: Rows) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        balancer = self.balancer
        shared = list(self.model.encoder.parameters()) if balancer.place == "parameters" else None
        with_features = shared is None or balancer.needs_features
        if balancer.needs_closure:
            balancer.backward(lambda: self.losses(batch) if with_features else self.losses(batch)[0], shared=shared)
        else:
            losses, features = self.losses(batch)
            balancer.backward(losses, shared=shared, features=features if with_features else None)
        self.optimizer.step()
        if isinstance(balancer, FAMO):
            with torch.no_grad():
                balancer.after_step(self.losses(batch)[0])

    def losses(self, batch: Rows) -> tuple[dict[str, Tensor], Tensor]:
        """Each task's mean loss, with its share of what the sharing module asks for besides; and the features."""
        features = self.model.features(batch.inputs)
        outputs = self.model.outputs(features)
        return self.model.losses(outputs, batch.targets, {name: batch.known(name) for name in outputs}), features
