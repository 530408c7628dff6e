"""Measures what is deployed: bytes, one row and 10,000 rows, of motet in torch, of its ONNX graph and of LightGBM.

    python benchmarks/serving.py [--run RUN] [--data-set flights] [--threads 2] [--time-limit 540]

All contenders answer the same rows in one process, one after the other. The last line of output is one JSON document.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import polars as pl
import torch
from _cell import hardware
from _datasets import DATA, DATASETS
from _encoding import Encoded
from _rivals import RIVALS

import motet
from motet.serve import export_onnx
from motet.serve._columns import feed

ROWS, CALLS, WARM_UP = 10_000, 2_000, 50
KINDS = ("float32", "int8")  # of weights
OUT = Path(__file__).parent / "results" / "serving.json"
Call = Callable[[int], object]  # takes a row's number


def main() -> None:
    asked = parser().parse_args()
    torch.set_num_threads(asked.threads)
    dataset = DATASETS[asked.data_set](asked.data)
    encoded = Encoded(dataset)
    rows = dataset.part("test").select(dataset.features)
    rows = rows[np.arange(ROWS) % len(rows)]
    contenders: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory() as folder:
        run = asked.run or fitted(encoded, asked, Path(folder) / "run")
        contenders |= ours(run, Path(folder), rows, asked.threads)
    if not asked.without_lightgbm:
        contenders["lightgbm"] = rival(encoded, rows, asked)
    document = {
        "command": "python benchmarks/" + " ".join([Path(__file__).name, *sys.argv[1:]]),
        "data_set": asked.data_set,
        "threads": {"one row": 1, "10,000 rows": asked.threads},
        "hardware": hardware(),
        "versions": {module.__name__: module.__version__ for module in (motet, torch, np, pl, onnxruntime)},
        "load_average": os.getloadavg()[1],
        "measured": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "contenders": contenders,
    }
    asked.out.write_text(json.dumps(document, indent=1) + "\n")
    for name, found in contenders.items():
        print(name, json.dumps(found), file=sys.stderr)
    print(json.dumps({"results": os.path.relpath(asked.out), "contenders": contenders}))


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    made.add_argument("--run", type=Path, help="a finished run on the data set; without one, one is fitted")
    made.add_argument("--data-set", choices=list(DATASETS), default="flights")
    made.add_argument("--threads", type=int, default=2)
    made.add_argument("--time-limit", type=float, default=540, help="seconds of each fit")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--without-lightgbm", action="store_true", help="do not fit and measure it")
    made.add_argument("--data", type=Path, default=DATA, help="the folder of the tables")
    made.add_argument("--out", type=Path, default=OUT)
    return made


def fitted(encoded: Encoded, asked: argparse.Namespace, path: Path) -> Path:
    """A run on the data set, under the default `--deploy small`."""
    makers = {
        "regression": motet.Regression,
        "binary": motet.Binary,
        "multiclass": motet.Multiclass,
        "count": motet.Count,
    }
    targets = [makers[kind](name) for name, kind in encoded.dataset.targets]
    model = motet.TabularModel(targets, time_limit=asked.time_limit, seed=asked.seed, split_column="split")
    return model.fit(encoded.dataset.frame).save(path)


def ours(run: Path, folder: Path, rows: pl.DataFrame, threads: int) -> dict[str, dict[str, object]]:
    """The run in torch, its whole graph, and the graph of the targets that networks serve."""
    model = motet.load(run)
    frames = [rows[[place]] for place in range(min(CALLS, ROWS))]
    size = sum(file.stat().st_size for file in run.rglob("*") if file.is_file())
    served = {name: answer.served_by for name, answer in model.served_.answers.items()}
    found: dict[str, dict[str, object]] = {
        "motet, torch": {
            "bytes": size,
            "model_bytes": (run / "model.safetensors").stat().st_size,
            "served_by": served,
            "test_rows": {
                name: {key: found[key] for key in ("metric", "motet", "single_task", "gain_percent", "ci95")}
                for name, found in model.metrics_["tasks"].items()
            },
            **timed(lambda place: model.estimate(frames[place % len(frames)]), lambda _: model.estimate(rows), 300),
        }
    }
    graphs = {"motet, onnx": list(served)}
    small = [name for name, by in served.items() if by not in {"own_lightgbm", "blend"}]
    if small and len(small) < len(served):
        graphs["motet, onnx, networks only"] = small
    columns = feed(model.served_.encoder, rows)
    values = rows.to_dicts()
    for title, tasks, weights in (
        (f"{title}, {kind}", tasks, kind) for title, tasks in graphs.items() for kind in KINDS
    ):
        exported = export_onnx(run, folder / title.replace(", ", "-"), tasks=tasks, table=rows, weights=weights)
        found[title] = {"bytes": exported.document["bytes"], "targets": tasks, **exported.document["check"]}
        found[title] |= graph_times(exported.path / "model.onnx", columns, threads)
        found[title]["front_end_row_ms"] = front_end_times(exported.document["inputs"], values)
    return found


def graph_times(path: Path, columns: dict[str, np.ndarray], threads: int) -> dict[str, object]:
    """One row with one thread, for more wait for one another, and all rows with all of them."""
    sessions = []
    for count in (1, threads):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = count
        sessions.append(onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]))
    singles = [{name: part[[place]] for name, part in columns.items()} for place in range(CALLS)]
    return timed(lambda place: sessions[0].run(None, singles[place]), lambda _: sessions[1].run(None, columns), CALLS)


def front_end_times(inputs: list[dict[str, str]], values: list[dict[str, object]]) -> dict[str, float]:
    """What a service spends on a row of plain values before the call."""
    return spread([clocked(lambda at: front_end(inputs, values[at]), place) for place in range(500)])


def front_end(inputs: list[dict[str, str]], row: dict[str, object]) -> dict[str, np.ndarray]:
    """A row of plain values as the graph takes it: an array for each, and a word for what is missing."""
    kinds = {"float64": np.float64, "int64": np.int64, "text": object}
    found = {}
    for one in inputs:
        value = row[one["name"]]
        if value is None:
            value = np.nan if one["missing"] == "NaN" else one["missing"]
        elif one["type"] == "int64":
            value = np.datetime64(value, "us").astype(np.int64)
        found[one["name"]] = np.array([value], dtype=kinds[one["type"]])
    return found


def rival(encoded: Encoded, rows: pl.DataFrame, asked: argparse.Namespace) -> dict[str, object]:
    """One LightGBM a target, from an encoded matrix: its own prediction and nothing else."""
    trained = RIVALS["lightgbm"](encoded, asked.seed, asked.threads, asked.time_limit)
    matrix = encoded.matrix(rows)
    times = timed(
        lambda place: trained.predict(matrix[[place]], 1), lambda _: trained.predict(matrix, asked.threads), 300
    )
    return {"bytes": len(trained.artefact), "notes": trained.notes, **times}


def timed(one_row: Call, all_rows: Call, calls: int) -> dict[str, object]:
    """Milliseconds of one row, median and 99th percentile, and of 10,000."""
    singles = [clocked(one_row, place) for place in range(calls)][min(WARM_UP, calls // 10) :]
    return {"row_ms": spread(singles), "rows_10000_ms": spread([clocked(all_rows, place) for place in range(12)][2:])}


def clocked(call: Call, place: int) -> float:
    begun = time.perf_counter()
    call(place)
    return 1000 * (time.perf_counter() - begun)


def spread(spans: list[float]) -> dict[str, float]:
    """Least, median and 99th percentile."""
    low, middle, high = np.quantile(spans, [0.0, 0.5, 0.99])
    return {"least": round(float(low), 4), "p50": round(float(middle), 4), "p99": round(float(high), 4)}


if __name__ == "__main__":
    main()
