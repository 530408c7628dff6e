"""Several merges scored against each other, the base and the experts; the best one is kept."""

import importlib.util
import math
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from motet._errors import MotetError, RequestError, RunError, suggest
from motet.merge._adapter import CONFIG
from motet.merge._compare import as_rows, compare_with_experts
from motet.merge._dtypes import Array
from motet.merge._merge import Output, Progress, merge_files
from motet.merge._method import Method
from motet.merge._sink import explained
from motet.merge._task_arithmetic import TaskArithmetic

# Takes the path of a model; gives one score, or by task one score or a score for each row, of which more is better.
Score: TypeAlias = Callable[[Path], float | Mapping[str, float | Sequence[float]]]


@dataclass(frozen=True)
class Scored:
    """What a scoring function said of one model.

    Args:
        model: its place, or the method that made it.
        score: mean over tasks.
        tasks: mean score by task.
        rows: (N,) scores by task, of the tasks that were scored row by row.
    """

    model: str
    score: float
    tasks: Mapping[str, float]
    rows: Mapping[str, Array]

    def document(self) -> dict[str, Any]:
        """The scores as a JSON document holds them."""
        return {"model": self.model, "score": self.score, "tasks": dict(self.tasks)}


def merge_best(
    base: Path | str,
    experts: Sequence[Path | str],
    out: Path | str,
    *,
    methods: Sequence[Method],
    score: Score,
    keep: Sequence[str] = (),
    output: Output | None = None,
    progress: Progress | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Merges by each method, scores the results beside base and experts, and leaves the best merge at `out`.

    Args:
        base: safetensors file or model folder.
        experts: the same, or adapter folders, which are written out as whole models to be scored.
        out: as `merge_files` takes it.
        methods: the candidates.
        score: called with the path of each model; gives a score, or scores by task, of which more is better. Candidates
            are compared by the mean over tasks. A task's score may be one number for each row: then the best merge is
            compared with the expert of that task, row by row.
        keep: patterns of tensors to take from the base.
        output: how the merges are written; as `Output()` says if None.
        progress: as `merge_files` takes it.
        seed: of the comparison's resamples.

    Returns:
        `scores`: for each model its place, its score and its scores by task; `best`: the place of the best merge;
        `guard`: for each task with row scores what `compare_with_experts` says, and the expert's place; `record`: what
        is in its files' metadata.

    Raises:
        RequestError: what `merge_files` refuses, a score that is no number, or tasks whose experts cannot be told.
        RunError: the scoring function fails.

    Cost: that of each merge, and disk space for all of them at once.
    """
    out = Path(out)
    if out.exists():
        message = f"'{out}' exists; a new file or folder was expected. Remove it, or choose another name."
        raise RequestError(message)
    how = output or Output()
    folder = out.with_name(f".{out.name}.candidates")
    with explained(out):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    try:
        places = [Path(path) for path in experts]
        known = [_asked(score, str(base), Path(base))]
        owners = find_owners(known[0].rows, places)
        for number, place in enumerate(places):
            whole = _whole(base, place, folder / f"expert{number}{out.suffix}", keep)
            known.append(_asked(score, str(place), whole))
        merged: list[tuple[Scored, Path, dict[str, Any]]] = []
        for number, method in enumerate(methods):
            place = folder / f"{number}{out.suffix}"
            record = merge_files(base, experts, place, method=method, keep=keep, output=how, progress=progress)
            merged.append((_asked(score, repr(method), place), place, record))
        best, place, record = max(merged, key=lambda entry: entry[0].score)
        guard = _guarded(best, known[1:], owners, seed)
        with explained(out):
            place.replace(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    scores = [one.document() for one in [*known, *(entry[0] for entry in merged)]]
    return {"best": best.model, "scores": scores, "guard": guard, "record": record}


def find_owners(tasks: Iterable[str], experts: Sequence[Path]) -> dict[str, int]:
    """Which expert a task belongs to: the one whose file or folder has the task's name, or else the one at its place.

    Raises:
        RequestError: some tasks are named as experts are and others not, or there are not as many as experts.
    """
    tasks = list(tasks)
    names = [path.name.removesuffix(".safetensors") for path in experts]
    if any(names.count(task) == 1 for task in tasks):
        unknown = [task for task in tasks if names.count(task) != 1]
        if not unknown:
            return {task: names.index(task) for task in tasks}
    elif len(tasks) in {0, len(experts)}:
        return {task: number for number, task in enumerate(tasks)}
    message = (
        f"Row scores of the tasks {tasks} arrived for the experts {names}; a task for each expert in the experts' "
        "order was expected, or tasks that all have the name of an expert's file. Rename the tasks."
    )
    raise RequestError(message)


def _asked(score: Score, title: str, place: Path) -> Scored:
    """What a scoring function says of the model at a path."""
    try:
        found = score(place)
    except MotetError:
        raise
    except Exception as error:
        message = f"The scoring function failed on '{title}' ({type(error).__name__}: {error}); a score was expected."
        raise RunError(message + " Call it with a model's path by itself, and repair it.") from error
    return scored(title, found)


def _whole(base: Path | str, expert: Path, place: Path, keep: Sequence[str]) -> Path:
    """The path of an expert as a model of its own: an adapter is written out with its base."""
    if not (expert / CONFIG).exists():
        return expert
    merge_files(base, [expert], place, method=TaskArithmetic(scale=1.0), keep=keep)
    return place


def _guarded(best: Scored, experts: Sequence[Scored], owners: Mapping[str, int], seed: int) -> list[dict[str, Any]]:
    if not owners:
        return []
    for model in (best, *experts):
        lacking = sorted(set(owners) - set(model.rows))
        if lacking:
            message = f"The scoring function gave no row scores of {lacking} for '{model.model}', and did for the base;"
            raise RequestError(message + " the same tasks were expected for every model. Score all tasks always.")
    own = {task: experts[number].rows[task] for task, number in owners.items()}
    found = compare_with_experts({task: best.rows[task] for task in owners}, own, seed=seed)
    return [one.document() | {"expert": experts[owners[one.task]].model} for one in found]


def load_score(text: str) -> Score:
    """The function that `FILE.py:function` names; the file is run.

    Raises:
        RequestError: there is no such file or function.
        RunError: the file does not run.
    """
    name, colon, function = text.rpartition(":")
    path = Path(name)
    if not colon or not function.isidentifier() or path.suffix != ".py" or not path.is_file():
        message = f"'{text}' was given; FILE.py:function was expected, with a file that exists. Check the name."
        raise RequestError(message)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        message = f"'{path}' is no Python file. Name a file that ends in .py."
        raise RequestError(message)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        message = f"'{path}' does not run ({type(error).__name__}: {error}). Run it with Python, and repair it."
        raise RunError(message) from error
    found = getattr(module, function, None)
    if not callable(found):
        known = [name for name, thing in vars(module).items() if callable(thing) and not name.startswith("_")]
        message = f"'{path}' has no function '{function}'.{suggest(function, known)}"
        raise RequestError(message)
    return found


def scored(title: str, found: float | Mapping[str, float | Sequence[float]]) -> Scored:
    """What a scoring function gave for one model.

    Raises:
        RequestError: it is neither a number nor numbers or row scores by task.
    """
    given: dict[str, Any] = {str(task): value for task, value in found.items()} if isinstance(found, Mapping) else {}
    rows = {task: as_rows(value, task) for task, value in given.items() if _is_rows(value)}
    tasks: dict[str, float] = {}
    try:
        tasks = {task: float(rows[task].mean() if task in rows else value) for task, value in given.items()}
        score = sum(tasks.values()) / len(tasks) if isinstance(found, Mapping) else float(found)
    except (TypeError, ValueError, ZeroDivisionError):
        score = math.nan
    if math.isnan(score):
        message = f"The scoring function gave {found!r} for '{title}'; a number, or numbers by task, were expected."
        raise RequestError(message + " Return one float, or a dict of floats or of lists with a float for each row.")
    return Scored(title, score, tasks, rows)


def _is_rows(value: Any) -> bool:
    return not isinstance(value, str) and (value.ndim > 0 if hasattr(value, "ndim") else hasattr(value, "__len__"))
