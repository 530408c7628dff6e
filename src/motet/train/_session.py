"""Where one training stands: which rows come next, when to evaluate, and when to end."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from motet.train._best import Best
from motet.train._checkpoint import Progress
from motet.train._clock import Clock, Cost, Meter

EVALUATIONS = 10  # at least so many in a training


@dataclass
class Session:
    """One training from its start, or from its checkpoint, to its end.

    Args:
        train_rows: numbers of the rows to learn from.
        stop_rows: numbers of the rows to evaluate on.
        batch_size: rows a step.
        total: steps at most.
        seed: of the order of rows.
        best: the best states so far.
        progress: steps, rows and cost so far.
        clock: the time that there is.
    """

    train_rows: np.ndarray
    stop_rows: np.ndarray
    batch_size: int
    total: int
    seed: int
    best: Best
    progress: Progress
    clock: Clock
    meter: Meter = field(default_factory=Meter)
    losses: "MeanLosses" = field(default_factory=lambda: MeanLosses())

    def __post_init__(self) -> None:
        self._before = self.progress.cost
        self._evaluated_at = self.clock.elapsed
        self._evaluation_took = 0.0
        self._order: tuple[int, np.ndarray] | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Steps in one pass over the training rows."""
        return -(-len(self.train_rows) // self.batch_size)

    @property
    def epoch(self) -> float:
        """Passes over the training rows so far."""
        return self.progress.step / self.steps_per_epoch

    @property
    def cost(self) -> Cost:
        """What was spent so far, earlier calls included."""
        cost = self._before + self.meter.read()
        return Cost(cost.seconds, cost.cpu_seconds, self.progress.rows)

    def part_done(self) -> float:
        """How much of the training is over, by steps or by the clock, whichever is further; 1 is the end."""
        steps = self.progress.step / self.total
        return steps if self.clock.limit is None else max(steps, self.clock.part_used)

    def next_rows(self) -> np.ndarray:
        """The rows of the next step; each epoch has an order of its own, made from the seed."""
        epoch, place = divmod(self.progress.step, self.steps_per_epoch)
        if self._order is None or self._order[0] != epoch:
            order = np.random.default_rng([self.seed, epoch]).permutation(len(self.train_rows))
            self._order = epoch, self.train_rows[order]
        return self._order[1][place * self.batch_size : (place + 1) * self.batch_size]

    def advance(self, rows: int, losses: Mapping[str, Tensor]) -> None:
        """Counts one step."""
        self.progress.step += 1
        self.progress.rows += rows
        self.losses.add(losses)

    def evaluation_is_due(self) -> bool:
        """Once an epoch and ten times in a training; with a time limit, by the clock, and an eighth of it at most."""
        if self.progress.step == self.total:
            return True
        if self.clock.limit is None:
            return self.progress.step % max(1, min(self.steps_per_epoch, self.total // EVALUATIONS)) == 0
        since = self.clock.elapsed - self._evaluated_at
        return since > max(self.clock.limit / EVALUATIONS, 8 * self._evaluation_took)

    def evaluated(self, took: float) -> None:
        """Notes that an evaluation has just been made, and how many seconds it took."""
        self._evaluated_at = self.clock.elapsed
        self._evaluation_took = took
        self.progress.cost = self.cost


class MeanLosses:
    """The mean of each task's loss since it was last asked for."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def __bool__(self) -> bool:
        return bool(self._counts)

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Takes in the losses of one step."""
        for name, loss in losses.items():
            self._sums[name] = self._sums[name] + loss if name in self._sums else loss
            self._counts[name] = self._counts.get(name, 0) + 1

    def take(self) -> dict[str, float]:
        """The means, and starts anew."""
        means = {name: round(float(total) / self._counts[name], 6) for name, total in self._sums.items()}
        self._sums.clear()
        self._counts.clear()
        return means
