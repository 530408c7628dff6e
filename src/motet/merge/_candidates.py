"""Several merges scored against each other, the base and the experts; the best one is kept."""

import importlib.util
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from motet._errors import RequestError, RunError, suggest
from motet.merge._merge import Output, Progress, merge_files
from motet.merge._method import Method
from motet.merge._sink import explained

# Takes the path of a model; gives one score, or scores by task, of which more is better.
Score: TypeAlias = Callable[[Path], float | Mapping[str, float]]


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
) -> dict[str, Any]:
    """Merges by each method, scores the results beside base and experts, and leaves the best merge at `out`.

    Args:
        base: safetensors file or model folder.
        experts: the same, or adapter folders, which are merged but not scored.
        out: as `merge_files` takes it.
        methods: the candidates.
        score: called with the path of each model; gives a score or scores by task, of which more is better. Candidates
            are compared by the mean over tasks.
        keep: patterns of tensors to take from the base.
        output: how the merges are written; as `Output()` says if None.
        progress: as `merge_files` takes it.

    Returns:
        `scores`: for each model its place, its score and its scores by task; `best`: the place of the best merge;
        `record`: what is in its files' metadata.

    Raises:
        RequestError: what `merge_files` refuses, or a score that is no number.

    Cost: that of each merge, and disk space for all of them at once.
    """
    out = Path(out)
    if out.exists():
        message = f"'{out}' exists; a new file or folder was expected. Remove it, or choose another name."
        raise RequestError(message)
    how = output or Output()
    models = [Path(path) for path in (base, *experts) if not (Path(path) / "adapter_config.json").exists()]
    scores = [_scored(str(model), score(model)) for model in models]
    folder = out.with_name(f".{out.name}.candidates")
    with explained(out):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    try:
        merged: list[tuple[float, Path, dict[str, Any]]] = []
        for number, method in enumerate(methods):
            place = folder / f"{number}{out.suffix}"
            record = merge_files(base, experts, place, method=method, keep=keep, output=how, progress=progress)
            found = _scored(repr(method), score(place))
            scores.append(found)
            merged.append((found["score"], place, record | {"title": repr(method)}))
        _, place, record = max(merged, key=lambda entry: entry[0])
        with explained(out):
            place.replace(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {"best": record.pop("title"), "scores": scores, "record": record}


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


def _scored(title: str, found: float | Mapping[str, float]) -> dict[str, Any]:
    tasks = {str(task): float(value) for task, value in found.items()} if isinstance(found, Mapping) else {}
    try:
        score = sum(tasks.values()) / len(tasks) if isinstance(found, Mapping) else float(found)
    except (TypeError, ValueError, ZeroDivisionError):
        score = math.nan
    if math.isnan(score):
        message = f"The scoring function gave {found!r} for '{title}'; a number, or numbers by task, were expected."
        raise RequestError(message + " Return one float, or a dict of floats.")
    return {"model": title, "score": score, "tasks": tasks}
