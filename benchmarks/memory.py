"""Peak memory of a whole `motet fit` on a large table: 2 million rows of 40 columns unless told otherwise.

python benchmarks/memory.py --out benchmarks/results/memory.json
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl


def table(rows: int, columns: int, seed: int = 0) -> pl.DataFrame:
    """A seeded table: numbers, whole numbers, categories, and four targets with a third of the labels missing."""
    generator = np.random.default_rng(seed)
    features = columns - 4
    signal = generator.normal(size=rows).astype(np.float32)
    made: dict[str, object] = {}
    for number in range(features):
        if number % 4 == 3:
            made[f"category{number}"] = pl.Series(generator.integers(0, 200, rows)).cast(pl.String) + "-level"
        elif number % 4 == 2:
            made[f"whole{number}"] = generator.integers(0, 10_000, rows)
        else:
            made[f"number{number}"] = signal + generator.normal(0, 1 + number, rows)
    frame = pl.DataFrame(made)
    for name, values in {
        "amount": signal * 10 + generator.normal(0, 5, rows),
        "score": signal - generator.normal(0, 2, rows),
    }.items():
        frame = frame.with_columns(missing(pl.Series(name, values), generator))
    frame = frame.with_columns(missing(pl.Series("bought", signal + generator.normal(0, 1, rows) > 1), generator))
    grade = np.array(["a", "b", "c"])[np.digitize(signal + generator.normal(0, 1, rows), [-0.5, 0.5])]
    return frame.with_columns(missing(pl.Series("grade", grade), generator))


def missing(labels: pl.Series, generator: np.random.Generator) -> pl.Series:
    """The labels, a third of them null."""
    return labels.zip_with(
        pl.Series(generator.random(len(labels)) > 1 / 3),
        pl.Series([None], dtype=labels.dtype).new_from_index(0, len(labels)),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--columns", type=int, default=40)
    parser.add_argument("--time-limit", default="4m")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.parquet"
        table(options.rows, options.columns).write_parquet(path)
        targets = [word for name in ("amount", "score", "bought", "grade") for word in ("--target", name)]
        command = [
            sys.executable,
            "-m",
            "motet",
            "fit",
            str(path),
            *targets,
            "--out",
            f"{folder}/run",
            "--time-limit",
            options.time_limit,
            "--json",
        ]
        started = time.monotonic()
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        seconds = time.monotonic() - started
        served = {name: task["served_by"] for name, task in json.loads(done.stdout)["metrics"]["tasks"].items()}
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)
    result = {
        "command": " ".join(["python", "benchmarks/memory.py", *sys.argv[1:]]),
        "rows": options.rows, "columns": options.columns, "time_limit": options.time_limit,
        "peak_gb": round(peak / 1e9, 2), "bar_gb": 8.0, "seconds": round(seconds, 1), "served_by": served,
        "machine": {"system": platform.system(), "processor": platform.machine(), "python": platform.python_version()},
    }  # fmt: skip
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
