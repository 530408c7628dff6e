"""What a problem is: rows with several labels, a network for them, and how long it is trained."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from motet.models import MultiTaskModel
from motet.tasks import Task


@dataclass(frozen=True)
class Rows:
    """Rows in memory, with their labels.

    Args:
        inputs: what the encoder reads, (N, ...) by name.
        targets: by task, as `Task.encode` gives them.
        present: by task, (N,) bool, true where a row has its label; None where every row has every label.
    """

    inputs: dict[str, Tensor]
    targets: dict[str, Tensor]
    present: dict[str, Tensor] | None = None

    def __len__(self) -> int:
        """How many rows."""
        return len(next(iter(self.inputs.values())))

    def take(self, places: Tensor) -> "Rows":
        """The rows at (n,) int64 places."""
        present = None if self.present is None else _taken(self.present, places)
        return Rows(_taken(self.inputs, places), _taken(self.targets, places), present)

    def known(self, task: str) -> Tensor:
        """Which rows have the task's label, (N,) bool."""
        return torch.ones(len(self), dtype=torch.bool) if self.present is None else self.present[task]


def _taken(part: dict[str, Tensor], places: Tensor) -> dict[str, Tensor]:
    return {name: tensor.index_select(0, places) for name, tensor in part.items()}


@dataclass(frozen=True)
class Schedule:
    """How long and how hard every method trains: Adam, a linear warm-up, then a linear way down to zero.

    Args:
        epochs: passes over the training rows.
        batch_size: rows a step.
        learning_rate: at the top.
        warm_up: steps until the top.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    warm_up: int = 20

    def steps(self, num_rows: int) -> int:
        """How many steps that makes; an epoch's last short batch is left out."""
        return self.epochs * max(1, num_rows // self.batch_size)

    def rate(self, step: int, num_steps: int) -> float:
        """The learning rate of one step, counted from 0."""
        return self.learning_rate * (1.0 - step / num_steps) * min(1.0, (step + 1) / self.warm_up)


@dataclass(frozen=True)
class Problem:
    """One data set with its network: what a method is measured on.

    Args:
        name: what selects it.
        tasks: fitted tasks.
        metric: the measure of every task, one of `Task.metrics`; by task where they differ.
        higher_is_better: of that measure; by task where they differ.
        train: rows to learn from.
        test: rows to measure on.
        build: a network for some of the tasks, from the global random state.
        schedule: how it is trained.
        about: one sentence on rows and network, for the result.
        tokens: an encoder to tokens (B, S, width) with its `width`, for architectures that read those; None where a
            row is one.
    """

    name: str
    tasks: tuple[Task, ...]
    metric: str | dict[str, str]
    higher_is_better: bool | dict[str, bool]
    train: Rows
    test: Rows
    build: Callable[[Sequence[Task]], MultiTaskModel]
    schedule: Schedule
    about: str
    tokens: Callable[[], nn.Module] | None = None

    def sizes(self) -> dict[str, Any]:
        """What a reader of the result must know of the problem."""
        return {
            "about": self.about, "tasks": [task.name for task in self.tasks], "metric": self.metric,
            "higher_is_better": self.higher_is_better, "train_rows": len(self.train), "test_rows": len(self.test),
            "steps": self.schedule.steps(len(self.train)), **asdict(self.schedule),
        }  # fmt: skip

    def fingerprint(self) -> str:
        """A hash of the rows, the tasks, the network's parameters and the schedule: all but method and seed."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(repr((self.sizes(), self.tasks)).encode())
        for rows in (self.train, self.test):
            for part in (rows.inputs, rows.targets, rows.present or {}):
                for name, tensor in part.items():
                    digest.update(name.encode())
                    digest.update(tensor.numpy().tobytes())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for name, value in self.build(self.tasks).state_dict().items():
                digest.update(f"{name}{tuple(value.shape)}".encode())
        return digest.hexdigest()
