"""MultiFashion: two garments on one canvas."""

from pathlib import Path

from motet.bench._images import GARMENTS, image_problem
from motet.bench._problem import Problem


def multifashion(data: Path | None, seed: int) -> Problem:
    """Which of ten classes each of two garments is."""
    return image_problem("multifashion", GARMENTS, GARMENTS, data, seed)
