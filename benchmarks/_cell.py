"""One measurement: one data set, one contender, one seed, in a process of its own."""

import json
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from _datasets import DATASETS
from _encoding import Encoded, Predictions
from _rivals import RIVALS

ROWS = 10_000
MOTETS = {"motet": "small", "motet_best": "best"}  # contender → what it deploys


@dataclass(frozen=True)
class Cell:
    """What is measured: a data set, a contender (a rival or motet), a seed, and what they may use."""

    dataset: str
    rival: str
    seed: int
    threads: int
    time_limit: float

    @property
    def stem(self) -> str:
        """The name of the cell's files in the cache."""
        return f"{self.dataset}-{self.rival}-{self.seed}-{self.threads}t-{self.time_limit:g}s"


@dataclass(frozen=True)
class Contender:
    """Something fitted that can be timed: it predicts every target from a frame of features."""

    estimate: Callable[[pl.DataFrame], Predictions]
    predict: Callable[[pl.DataFrame], object]
    artefact_bytes: int
    notes: list[str]


def measure(cell: Cell, data: Path, cache: Path) -> None:
    """Fits, predicts and times; leaves `<stem>.npz` and then `<stem>.json` in the cache."""
    dataset = DATASETS[cell.dataset](data)
    encoded = Encoded(dataset)
    fit = _fit_motet if cell.rival in MOTETS else _fit_rival
    begun, processor = time.perf_counter(), _cpu_seconds()
    contender = fit(encoded, cell)
    seconds, cpu_seconds = time.perf_counter() - begun, _cpu_seconds() - processor
    test = dataset.part("test")
    features = test.select(dataset.features)
    predictions = contender.estimate(features)
    numbers = {
        "fit_seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "artefact_bytes": contender.artefact_bytes,
        "row_ms": _time(contender.predict, [features[[place % len(test)]] for place in range(55)], warm_up=5),
        "rows_10000_ms": _time(contender.predict, [features[np.arange(ROWS) % len(test)]] * 2, warm_up=1),
        "peak_rss_bytes": _peak_bytes(),
    }
    arrays = {}
    for target, _ in dataset.targets:
        arrays[f"truth/{target}"] = encoded.labels(test, target).astype(np.float32)
        arrays[f"predicted/{target}"] = np.asarray(predictions[target], dtype=np.float32)
    np.savez_compressed(cache / f"{cell.stem}.npz", **arrays)
    document = asdict(cell) | numbers | {"notes": contender.notes, "hardware": hardware()}
    part = cache / f"{cell.stem}.json.part"
    part.write_text(json.dumps(document))
    part.replace(cache / f"{cell.stem}.json")  # last, and whole: its presence says that the cell is finished


def _fit_rival(encoded: Encoded, cell: Cell) -> Contender:
    fitted = RIVALS[cell.rival](encoded, cell.seed, cell.threads, cell.time_limit)

    def estimate(frame: pl.DataFrame) -> Predictions:
        # More threads than rows only wait for one another.
        return fitted.predict(encoded.matrix(frame), min(cell.threads, len(frame)))

    return Contender(estimate, estimate, len(fitted.artefact), fitted.notes)


def _fit_motet(encoded: Encoded, cell: Cell) -> Contender:
    import torch

    import motet

    torch.set_num_threads(cell.threads)
    makers = {"regression": "Regression", "binary": "Binary", "multiclass": "Multiclass", "count": "Count"}
    targets = [getattr(motet, makers[kind])(name) for name, kind in encoded.dataset.targets]
    if encoded.dataset.task_column:
        return _fit_task_column(encoded, cell, targets[0])
    model = motet.TabularModel(
        targets=targets,
        time_limit=cell.time_limit,
        seed=cell.seed,
        split_column="split",
        settings=motet.FitSettings(deploy=MOTETS[cell.rival]),
    )
    model.fit(encoded.dataset.frame)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        model.save(path)
        size = _bytes(path)
        served = motet.load(path)

    def estimate(frame: pl.DataFrame) -> Predictions:
        found = dict(served.estimate(frame))
        for target, classes in encoded.classes.items():
            found[target] = _in_order(found[target], served.task(target).classes, classes)
        return found

    notes = [f"{name}: {found['served_by']}" for name, found in model.metrics_["tasks"].items()]
    return Contender(
        estimate, served.predict, size, [*notes, *model.run_["notes"], json.dumps(model.metrics_["seconds"])]
    )


def _fit_task_column(encoded: Encoded, cell: Cell, target: Any) -> Contender:
    """Where each row belongs to one task."""
    from motet.tabular.task_column import TaskColumnModel

    column = encoded.dataset.task_column
    model = TaskColumnModel(
        target, task_column=column, time_limit=cell.time_limit, seed=cell.seed, split_column="split"
    )
    model.fit(encoded.dataset.frame)
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "run")
        size = _bytes(Path(folder) / "run")
        served = TaskColumnModel.load(Path(folder) / "run")
    name, kind = encoded.dataset.targets[0]

    def estimate(frame: pl.DataFrame) -> Predictions:
        if kind not in ("binary", "multiclass"):
            return {name: served.predict(frame)[name].to_numpy()}
        found = served.predict_proba(frame)
        if kind == "binary":
            return {name: found.to_numpy()[:, 1]}
        return {name: _in_order(found.to_numpy(), found.columns, encoded.classes[name])}

    return Contender(estimate, served.predict, size, [f"{name}: {model.served_by_}", *model.notes_])


def _in_order(found: np.ndarray, known: Sequence[object], classes: Sequence[object]) -> np.ndarray:
    """Probabilities (N, C) in the order of the truth's classes, zero for what the model does not know."""
    order = [str(name) for name in known]
    columns = [order.index(str(name)) if str(name) in order else None for name in classes]
    empty = np.zeros(len(found))
    return np.stack([empty if c is None else found[:, c] for c in columns], axis=1)


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _time(call: Callable[[pl.DataFrame], object], frames: list[pl.DataFrame], warm_up: int) -> float:
    """The median of the calls in milliseconds, after the first ones."""
    spans = []
    for frame in frames:
        begun = time.perf_counter()
        call(frame)
        spans.append(1000 * (time.perf_counter() - begun))
    return statistics.median(spans[warm_up:])


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _peak_bytes() -> int:
    """The most memory that this process has held."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not getrusage here: on Linux its peak starts at what the process that launched this one held.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def hardware() -> dict[str, object]:
    """The processor and how many of its cores there are."""
    model, info = platform.processor(), Path("/proc/cpuinfo")
    if info.exists():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].partition(":")[2].strip() if lines else model
    return {"system": platform.system(), "processor": model, "cores": os.cpu_count()}
