"""MultiMNIST: two digits on one canvas."""

from pathlib import Path

from motet.bench._images import DIGITS, image_problem
from motet.bench._problem import Problem


def multimnist(data: Path | None, seed: int) -> Problem:
    """Which of ten classes each of two digits is."""
    return image_problem("multimnist", DIGITS, DIGITS, data, seed)
