"""Eight tasks of MNIST and Fashion-MNIST for a network that was trained on a pool of upright images."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from _experts_case import Rows, Size, State, train
from torch import Tensor, nn
from torch.nn import functional

from motet.bench._images import DIGITS, GARMENTS, _read

POOL = 10_000  # the first training images of each set; the tasks' rows come from the others
CLASSES, POOL_BATCH = 5, 64


@dataclass(frozen=True)
class Part:
    """A task: five classes of one set of images, upright or turned."""

    name: str
    source: str
    low: int
    turns: int


PARTS = tuple(
    Part(f"{'digits' if source is DIGITS else 'garments'} {low}-{low + 4}{' turned' if turns else ''}",
         source.name, low, turns)
    for source in (DIGITS, GARMENTS)
    for turns in (0, 1)
    for low in (0, 5)
)  # fmt: skip


class ImageProblem:
    """Digits 0-4 and 5-9, garments 0-4 and 5-9, each upright and turned by a quarter."""

    tasks = tuple(part.name for part in PARTS)
    classes = (CLASSES,) * len(PARTS)

    def __init__(self, data: Path, trunk: Callable[[], nn.Module], width: int, *, routed: str, rate: float) -> None:
        self.trunk, self.width, self.routed, self.rate = trunk, width, routed, rate
        self._found = {
            (source.name, part): _read(source, part, data)
            for source in (DIGITS, GARMENTS)
            for part in ("train", "t10k")
        }

    def base(self, size: Size, seed: int) -> State:
        """A trunk that has learned the twenty classes of the pool."""
        torch.manual_seed(seed)
        model, head = self.trunk(), nn.Linear(self.width, 20)
        generator = np.random.default_rng([seed, 1])

        def loss() -> Tensor:
            rows, classes = self._pool(generator)
            return functional.cross_entropy(head(model(rows)), classes)

        train([*model.parameters(), *head.parameters()], loss, size.pretrain_steps, 1e-3)
        return model.state_dict()

    def rows(self, task: int, which: str, count: int, generator: np.random.Generator) -> Rows:
        """Some of a task's images and their classes from 0 on; of the training images those behind the pool."""
        part = PARTS[task]
        images, labels = self._found[part.source, "train" if which == "train" else "t10k"]
        fitting = (labels >= part.low) & (labels < part.low + CLASSES)
        fitting[: POOL if which == "train" else 0] = False
        chosen = generator.permutation(np.flatnonzero(fitting))[:count]
        return prepared(np.rot90(images[chosen], part.turns, (1, 2))), torch.from_numpy(labels[chosen] - part.low)

    def changed(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Moved by up to two pixels, in another contrast, with noise."""
        rows, side = len(images), images.shape[1]
        moves = torch.randint(-2, 3, (2, rows, 1), generator=generator)
        down, across = (torch.arange(side) + moves).clamp(0, side - 1)
        moved = images[torch.arange(rows)[:, None, None], down[:, :, None], across[:, None, :]]
        contrast = 0.7 + 0.6 * torch.rand(rows, 1, 1, generator=generator)
        return contrast * moved + 0.3 * torch.randn(moved.shape, generator=generator)

    def _pool(self, generator: np.random.Generator) -> Rows:
        found = []
        for offset, source in ((0, DIGITS), (10, GARMENTS)):
            images, labels = self._found[source.name, "train"]
            chosen = generator.integers(0, POOL, POOL_BATCH)
            found.append((prepared(images[chosen]), torch.from_numpy(labels[chosen] + offset)))
        return torch.cat([one for one, _ in found]), torch.cat([one for _, one in found])


def prepared(images: np.ndarray) -> Tensor:
    """Bytes to numbers around zero."""
    return (torch.from_numpy(np.ascontiguousarray(images)).float() / 255 - 0.3) / 0.35
