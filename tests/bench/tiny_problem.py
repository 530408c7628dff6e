"""A problem that trains in a blink: two classes and a number from four features."""

import functools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from motet.bench import Problem, Rows, Schedule
from motet.models import HardSharing, MultiTaskModel
from motet.tasks import Binary, Task


class TinyTrunk(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.ReLU())

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return self.layers(inputs["x"])


def network(tasks: Sequence[Task]) -> MultiTaskModel:
    return MultiTaskModel(TinyTrunk(), HardSharing(len(tasks), width=8), tasks, head_width=4)


def rows(count: int, seed: int) -> Rows:
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(count, 4)).astype(np.float32)
    sums = {"first": x[:, 0] + x[:, 1], "second": x[:, 1] - x[:, 2]}
    targets = {name: torch.from_numpy((value > 0).astype(np.float32)) for name, value in sums.items()}
    return Rows({"x": torch.from_numpy(x)}, targets)


def tiny_problem(name: str = "tiny", num_rows: int = 128, epochs: int = 2) -> Problem:
    return Problem(
        name=name, tasks=tuple(Binary(task, classes=(False, True)) for task in ("first", "second")), metric="accuracy",
        higher_is_better=True, train=rows(num_rows, 0), test=rows(200, 1), build=network,
        schedule=Schedule(epochs=epochs, batch_size=32, learning_rate=1e-2, warm_up=2), about="made up",
    )  # fmt: skip


def loaders(*names: str) -> dict[str, functools.partial[Problem]]:
    return {name: functools.partial(tiny_problem, name) for name in names or ("tiny",)}
