"""Every problem and every comparison, by name."""

import functools
from collections.abc import Callable, Iterable
from pathlib import Path

from motet._errors import RequestError, suggest
from motet.bench._architectures import SHARING
from motet.bench._balancing import BALANCE
from motet.bench._census import census
from motet.bench._clothing import clothing
from motet.bench._comparison import Comparison
from motet.bench._fashion_mnist import fashion_mnist
from motet.bench._flights import flights
from motet.bench._movielens import movielens
from motet.bench._multifashion import multifashion
from motet.bench._multimnist import multimnist
from motet.bench._multitab_bench import multitab_bench
from motet.bench._problem import Problem
from motet.bench._rf1 import rf1
from motet.bench._yeast import yeast

COMPARISONS: dict[str, Comparison] = {comparison.name: comparison for comparison in (BALANCE, SHARING)}

Load = Callable[[], Problem]
PROBLEMS: dict[str, Callable[[Path | None, int], Problem]] = {
    "multimnist": multimnist,
    "multifashion": multifashion,
    "fashion-mnist": fashion_mnist,
    "census": census,
    "rf1": rf1,
    "yeast": yeast,
    "multitab-bench": multitab_bench,
    "movielens": movielens,
    "clothing": clothing,
    "flights": flights,
}


def problem_loaders(names: Iterable[str] | None = None, *, data: Path | None = None, seed: int = 0) -> dict[str, Load]:
    """What loads each problem.

    Args:
        names: of `PROBLEMS`; all when None.
        data: folder with the images and tables that no package brings.
        seed: of the drawn rows and pairs.

    Raises:
        RequestError: there is no problem of that name.
    """
    chosen = list(PROBLEMS) if names is None else list(dict.fromkeys(names))
    for name in chosen:
        if name not in PROBLEMS:
            message = f"There is no problem '{name}'.{suggest(name, PROBLEMS)} Choose from: {', '.join(PROBLEMS)}."
            raise RequestError(message)
    return {name: functools.partial(PROBLEMS[name], data, seed) for name in chosen}
