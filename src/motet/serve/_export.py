"""A run as one ONNX graph: raw columns in, calibrated estimates of every target out."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from motet import __version__
from motet._errors import RequestError, RunError, require, suggest
from motet.data import read_table
from motet.serve._answers import answer_nodes
from motet.serve._check import check, differences
from motet.serve._columns import inputs_of
from motet.serve._encoding import encode
from motet.serve._graph import Graph
from motet.serve._int8 import DOMAIN as BYTES_DOMAIN
from motet.serve._networks import OPSET, network_nodes, require_exporter
from motet.serve._open import classes_of, open_run
from motet.serve._rows import made_up
from motet.serve._task_column import task_column_nodes
from motet.serve._trees import tree_nodes
from motet.tabular import TabularModel, TaskColumnModel
from motet.tabular._served import Fold, Served
from motet.tabular.task_column._served import ServedTasks
from motet.tasks import Interval, Quantile
from motet.train import write_json

ROWS = 1_000  # that are compared
TOLERANCES = {"float32": 1e-4, "int8": 0.1}
TREES_OPSET = 5  # the first with sets of categories
TYPES = {"float64": 11, "int64": 7, "text": 8}  # ONNX's numbers for them
FLOAT = 1


@dataclass(frozen=True)
class Exported:
    """What `export_onnx` wrote.

    Args:
        path: the folder, with `model.onnx` and `model.json`.
        document: what `model.json` says: inputs, outputs, and how far the graph is from the run.
    """

    path: Path
    document: dict[str, Any] = field(repr=False)


def export_onnx(
    run: str | Path | TabularModel | TaskColumnModel,
    out: str | Path,
    *,
    tasks: Sequence[str] | None = None,
    table: Any = None,
    weights: Literal["float32", "int8"] = "float32",
    tolerance: float | None = None,
    seed: int = 0,
) -> Exported:
    """Writes a fitted table model as one ONNX graph that needs neither Python nor torch.

    The graph takes the table's own columns, one input each, and gives each target's calibrated estimates under its
    name: what serves the target, be it a network, trees or a blend, with the encoding before it and the calibration
    behind. Before anything is written the graph is run beside the model. With a task column that column is one more
    input: each row is answered as its task is, and a task never seen by what the others have in common.

    Args:
        run: a finished run's folder, or a fitted model.
        out: folder for `model.onnx` and `model.json`; new, or empty.
        tasks: the targets to export; without those that trees serve the graph is smaller and faster.
        table: rows to compare on, the first thousand; without one, rows are made up from what the model knows of its
            columns.
        weights: `int8` rounds networks' layers: a quarter of the bytes and about half the time of a row, for ONNX
            Runtime alone, and no longer the same to seven digits.
        tolerance: the largest difference allowed, in units of a number's scale, or as a probability; None for 1e-4, and
            0.1 with int8.
        seed: of made-up rows.

    Raises:
        RequestError: no such run or target, or `out` holds something.
        MissingExtraError: `motet[onnx]` is not installed.
        RunError: the graph says something else than the run, or the disk is full; nothing is left behind.

    Cost: a few seconds a network, most of them the exporter's.
    """
    require_exporter()
    folder = _free(Path(out))
    if weights not in TOLERANCES:
        message = f"weights is {weights!r}; one of {', '.join(TOLERANCES)} was expected.{suggest(weights, TOLERANCES)}"
        raise RequestError(message)
    tolerance = TOLERANCES[weights] if tolerance is None else tolerance
    if not tolerance >= 0:
        message = f"tolerance is {tolerance!r}; zero or a positive number was expected. Leave it out for the usual one."
        raise RequestError(message)
    model = run if isinstance(run, (TabularModel, TaskColumnModel)) else open_run(run)
    classes = classes_of(model)  # says so where the model is not fitted
    served = model.served_
    names = served.names(tasks)
    if not names:
        message = "No target was asked for; at least one was expected. Leave tasks out for all of them."
        raise RequestError(message)
    frame = made_up(served, ROWS, seed) if table is None else read_table(table).head(ROWS)
    if isinstance(served, Served):
        _check_forms(served, names)
    described = _described(served, names, classes) | {"weights": weights}
    data = _graph(served, names, described, weights)
    largest = differences(data, served, frame, names)
    check(largest, tolerance)
    compared = {"rows": frame.height, "made_up": table is None, "tolerance": tolerance}
    found = described | {"bytes": len(data), "check": compared | {"largest_difference": largest}}
    _write(folder, data, found)
    return Exported(folder, found)


def _check_forms(served: Served, names: list[str]) -> None:
    """Refuses targets that are served by something that has no form here.

    Raises:
        RequestError: see above.
    """
    known = {network.candidate for network in served.networks} | {"own_lightgbm"}
    strange = {name: sorted(set(served.answers[name].shares) - known) for name in names}
    if strange := {name: parts for name, parts in strange.items() if parts}:
        listed = ", ".join(f"'{name}' ({', '.join(parts)})" for name, parts in strange.items())
        message = (
            f"Served by what has no form in ONNX: {listed}; networks and LightGBM's trees were expected. Export the "
            "other targets with --target, fit again with --deploy small or FitSettings(catboost=False), or serve this "
            "run from Python."
        )
        raise RequestError(message)


def _graph(served: Served | ServedTasks, names: list[str], described: dict[str, Any], weights: str) -> bytes:
    """The whole graph, serialised."""
    helper = require("onnx.helper", "onnx")
    graph = Graph()
    if isinstance(served, ServedTasks):
        answers = {served.task.name: task_column_nodes(graph, served, weights=weights)}
    else:
        encoded = encode(graph, served.encoder)
        cuts = [_parts(graph, cut, names, encoded, weights) for cut in (served, *served.folds)]
        answers = {name: answer_nodes(graph, served.answers[name], [parts[name] for parts in cuts]) for name in names}
    outputs = []
    for name, answer in answers.items():
        graph.nodes.append(helper.make_node("Identity", [answer], [name], name=f"motet.answer.{name}"))
        shape = ["rows"] + ([len(_columns(described, name))] if _columns(described, name) else [])
        outputs.append(helper.make_tensor_value_info(name, FLOAT, shape))
    inputs = [helper.make_tensor_value_info(one["name"], TYPES[one["type"]], ["rows"]) for one in described["inputs"]]
    made = helper.make_graph(graph.nodes, "motet", inputs, outputs, list(graph.constants.values()))
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", TREES_OPSET)]
    opsets += [helper.make_opsetid(BYTES_DOMAIN, 1)] if weights == "int8" else []
    whole = helper.make_model(made, opset_imports=opsets, ir_version=10, producer_name="motet")
    helper.set_model_props(whole, {"motet": json.dumps(described, ensure_ascii=False)})
    return whole.SerializeToString()


def _parts(
    graph: Graph, cut: Served | Fold, names: list[str], encoded: dict[str, str], weights: str
) -> dict[str, dict[str, str]]:
    """Adds what was trained on one cut of the rows; gives the name of each candidate's estimates, by target."""
    parts: dict[str, dict[str, str]] = {name: {} for name in names}
    for network in cut.networks:
        if wanted := [name for name in network.answers if name in parts]:
            for name, estimates in network_nodes(graph, network, tuple(wanted), encoded, weights=weights).items():
                parts[name][network.candidate] = estimates
    if wanted := [name for name in cut.trees if name in parts]:
        matrix = _matrix(graph, encoded)
        for name in wanted:
            parts[name]["own_lightgbm"] = tree_nodes(graph, cut.trees[name], matrix)
    return parts


def _matrix(graph: Graph, encoded: dict[str, str]) -> str:
    """Numbers and codes side by side, as trees take them."""
    parts = [encoded["numbers"]] if "numbers" in encoded else []
    parts += [graph.add("Cast", [encoded["categories"]], {"to": FLOAT})] if "categories" in encoded else []
    return parts[0] if len(parts) == 1 else graph.add("Concat", parts, {"axis": 1})


def _described(served: Served | ServedTasks, names: list[str], classes: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """What a program that calls the graph has to know."""
    outputs = []
    for name in names:
        task = served.answers[name].task
        outputs.append(
            {
                "name": name,
                "kind": task.kind,
                "unit": getattr(task, "unit", ""),
                "classes": list(classes.get(name, ())),
                "levels": list(task.levels) if isinstance(task, Quantile) else [],
            }
            | _answered(served, name)
        )
    inputs = [asdict(one) for one in inputs_of(served.encoder)]
    found = {"format": 1, "motet": __version__, "opset": OPSET, "inputs": inputs, "outputs": outputs}
    return found | ({"task_column": served.column} if isinstance(served, ServedTasks) else {})


def _answered(served: Served | ServedTasks, name: str) -> dict[str, Any]:
    """What answers a target, and the ranges around it; with a task column by task, and for all others."""
    if isinstance(served, ServedTasks):
        known = sorted(served.known)
        sources = dict(zip(known, served.sources(np.array(known)).tolist(), strict=True))
        by_task = {"served_by": sources, "intervals": {key: one.to_dict() for key, one in served.intervals.items()}}
        return {"interval": _ends(served.interval), "served_by": served.shared.name, "by_task": by_task}
    return {"interval": _ends(served.answers[name].interval), "served_by": served.answers[name].served_by}


def _ends(interval: Interval | None) -> dict[str, Any] | None:
    return None if interval is None else interval.to_dict()


def _columns(described: dict[str, Any], name: str) -> list[Any]:
    """What the columns of a target's estimates are; nothing where they are one number a row."""
    (output,) = [one for one in described["outputs"] if one["name"] == name]
    return [] if output["kind"] == "binary" else output["classes"] or output["levels"]


def _free(folder: Path) -> Path:
    """The folder, if nothing is in its place.

    Raises:
        RequestError: a file, or a folder that is not empty.
    """
    if folder.is_dir() and any(folder.iterdir()):
        message = f"'{folder}' is not empty; a new or an empty folder was expected. Choose another one, or clear it."
        raise RequestError(message)
    if folder.exists() and not folder.is_dir():
        message = f"'{folder}' is a file; a new or an empty folder was expected. Choose another one."
        raise RequestError(message)
    return folder


def _write(folder: Path, data: bytes, document: dict[str, Any]) -> None:
    """Both files in a folder beside, which then takes the asked-for name: all or nothing."""
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        beside.mkdir(parents=True)
        (beside / "model.onnx").write_bytes(data)
        write_json(beside / "model.json", document)
        beside.replace(folder)
    except OSError as error:
        message = (
            f"'{folder}' could not be written ({error.strerror or error}), and nothing was left behind. Check that "
            "there is space and that the folder is yours to write."
        )
        raise RunError(message) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
