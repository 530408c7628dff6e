"""Fashion and MNIST: a garment and a digit on one canvas."""

from pathlib import Path

from motet.bench._images import DIGITS, GARMENTS, image_problem
from motet.bench._problem import Problem


def fashion_mnist(data: Path | None, seed: int) -> Problem:
    """Which of ten classes each of a garment and a digit is."""
    return image_problem("fashion-mnist", GARMENTS, DIGITS, data, seed)
