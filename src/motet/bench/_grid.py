"""The runner: every cell of problems, methods and seeds that is not yet there."""

import itertools
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any

import torch

from motet._errors import RequestError
from motet.bench._balancing import BALANCE
from motet.bench._catalogue import Load
from motet.bench._cell import Budget, run_cell
from motet.bench._comparison import Comparison
from motet.bench._problem import Problem
from motet.bench._store import Store, cell_key

Cell = dict[str, Any]
Tell = Callable[[Cell, int, int], None]
Waiting = tuple[str, str, int, str]  # problem, method, seed, key


@dataclass(frozen=True)
class Grid:
    """What is to be measured.

    Args:
        methods: names of the comparison's contenders.
        seeds: one cell each.
        budget: of a cell.
        threads: of torch in each process.
        comparison: what the methods are.
    """

    methods: Sequence[str]
    seeds: Sequence[int]
    budget: Budget
    threads: int = 1
    comparison: Comparison = BALANCE

    def __post_init__(self) -> None:
        if not self.seeds or not self.methods or self.threads < 1:
            message = (
                f"A grid has {len(self.methods)} methods, {len(self.seeds)} seeds and {self.threads} threads; "
                "at least one of each was expected. Name what to measure."
            )
            raise RequestError(message)


@dataclass(frozen=True)
class Measured:
    """A grid's cells, and what the problems are.

    Args:
        cells: one for each problem, method and seed, in that order.
        problems: `Problem.sizes` by name, with its fingerprint.
        left_out: by problem, by method, why it was not measured there.
    """

    cells: list[Cell]
    problems: dict[str, dict[str, Any]]
    left_out: dict[str, dict[str, str]] = field(default_factory=dict)


def run_grid(
    loaders: Mapping[str, Load], grid: Grid, store: Store, *, jobs: int = 1, tell: Tell | None = None
) -> Measured:
    """Measures every cell that the store lacks, and keeps each as soon as it is finished.

    A run that was stopped goes on from there. With several jobs each process loads a problem for itself.

    Args:
        loaders: what loads each problem; with several jobs these must be picklable.
        grid: methods, seeds and budget.
        store: where finished cells are.
        jobs: processes at once.
        tell: is called with each cell, how many are there, and how many there will be.

    Raises:
        RequestError: fewer than one job, or a problem's data are missing.
    """
    if jobs < 1:
        message = f"--jobs {jobs} was given; at least 1 was expected. Leave it out for one process."
        raise RequestError(message)
    problems = {name: load() for name, load in loaders.items()}
    about = {name: {**problem.sizes(), "fingerprint": problem.fingerprint()} for name, problem in problems.items()}
    left_out = _left_out(problems, grid)
    found: dict[tuple[str, str, int], Cell] = {}
    waiting: list[Waiting] = []
    # Seeds outermost: a run that is stopped early has whole tables of fewer seeds.
    for seed, name, method in itertools.product(grid.seeds, loaders, grid.methods):
        if method in left_out.get(name, {}):
            continue
        key = cell_key(about[name]["fingerprint"], method, seed, grid.budget, grid.threads, grid.comparison)
        cell = store.find(name, method, seed, key)
        if cell is None:
            waiting.append((name, method, seed, key))
        else:
            found[name, method, seed] = cell
    total = len(found) + len(waiting)
    measured = _here(waiting, problems, grid) if jobs == 1 else _elsewhere(waiting, loaders, grid, jobs)
    for (name, method, seed, key), cell in measured:
        found[name, method, seed] = store.keep(cell, key)
        if tell is not None:
            tell(cell, len(found), total)
    places = itertools.product(loaders, grid.methods, grid.seeds)
    return Measured([found[place] for place in places if place in found], about, left_out)


def _left_out(problems: Mapping[str, Problem], grid: Grid) -> dict[str, dict[str, str]]:
    reasons = {
        name: {method: reason for method in grid.methods if (reason := grid.comparison.left_out(problem, method))}
        for name, problem in problems.items()
    }
    return {name: found for name, found in reasons.items() if found}


def _here(waiting: Iterable[Waiting], problems: Mapping[str, Problem], grid: Grid) -> Iterator[tuple[Waiting, Cell]]:
    threads = torch.get_num_threads()
    torch.set_num_threads(grid.threads)
    try:
        for place in waiting:
            yield place, run_cell(problems[place[0]], place[1], place[2], grid.budget, grid.comparison)
    finally:
        torch.set_num_threads(threads)


def _elsewhere(
    waiting: Iterable[Waiting], loaders: Mapping[str, Load], grid: Grid, jobs: int
) -> Iterator[tuple[Waiting, Cell]]:
    # A forked process would inherit torch's threads in an unknown state.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        running = {pool.submit(_in_worker, loaders[place[0]], place, grid): place for place in waiting}
        try:
            for future in as_completed(running):
                yield running[future], future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


_LOADED: dict[str, Problem] = {}  # of a worker process, which serves one grid: loading takes as long as a small cell


def _in_worker(load: Load, place: Waiting, grid: Grid) -> Cell:
    torch.set_num_threads(grid.threads)
    if place[0] not in _LOADED:
        _LOADED[place[0]] = load()
    return run_cell(_LOADED[place[0]], place[1], place[2], grid.budget, grid.comparison)
