"""Every problem and every method of the comparison, by name."""

import functools
from collections.abc import Callable, Iterable
from pathlib import Path

from motet._errors import RequestError, suggest
from motet.balance import from_name, methods, wrappers
from motet.bench._census import census
from motet.bench._fashion_mnist import fashion_mnist
from motet.bench._multifashion import multifashion
from motet.bench._multimnist import multimnist
from motet.bench._problem import Problem
from motet.bench._rf1 import rf1
from motet.bench._yeast import yeast

SINGLE, EQUAL = "single", "equal"
NO_CONTENDERS = ("accumulation",)  # it spreads one step over several batches: another schedule, not another method
COMBINED = ("f-mtl+mgda", "f-mtl+pcgrad", "f-mtl+cagrad", "f-mtl+imtl-g", "samo+fairgrad")  # what papers report

Load = Callable[[], Problem]
PROBLEMS: dict[str, Callable[[Path | None, int], Problem]] = {
    "multimnist": multimnist,
    "multifashion": multifashion,
    "fashion-mnist": fashion_mnist,
    "census": census,
    "rf1": rf1,
    "yeast": yeast,
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


def contenders(names: Iterable[str] | None = None) -> list[str]:
    """The methods to compare: `single` and `equal` first, since the others are measured against them.

    Args:
        names: of methods, of wrappers, or both joined as in `f-mtl+cagrad`; when None all methods, all wrappers
            around the method that they take by themselves, and `COMBINED`.

    Raises:
        RequestError: there is no method of that name.
    """
    if names is None:
        alone = [name for name in (*methods(), *wrappers()) if name not in NO_CONTENDERS]
        names = [*alone, *COMBINED]
    chosen = list(dict.fromkeys([SINGLE, EQUAL, *names]))
    for name in chosen:
        if name != SINGLE:
            from_name(name)
    return chosen
