"""Measures motet and what one would use instead on real tables, and writes JSON and a table.

    python benchmarks/tables.py [--data-sets small] [--rivals lightgbm,mlp] [--motet] [--best] [--seeds 0..4]

Every cell (data set, contender, seed) runs in a process of its own and is kept in the cache when it is finished, so
that a run that was stopped goes on where it was. The last line of output is one JSON document.
"""

import argparse
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from _bars import bars
from _cell import MOTETS, Cell, hardware, measure
from _datasets import DATA, DATASETS, LIMITS, SMALL
from _rivals import RIVALS, SEEDLESS
from _scores import MAIN, compare, score

ROOT = Path(__file__).parents[1]
HERE = ROOT / "benchmarks"
CACHE = ROOT / "benchmarks" / ".cache"
REFERENCE = "lightgbm"
PACKAGES = ("motet", "torch", "numpy", "polars", "lightgbm", "xgboost", "catboost", "scikit-learn")


def main(arguments: list[str] | None = None) -> None:
    asked = parser().parse_args(arguments)
    if asked.cell:
        measure(Cell(**json.loads(asked.cell)), asked.data, asked.cache)
        return
    cells = cells_of(asked)
    asked.cache.mkdir(parents=True, exist_ok=True)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    done, failed = [], []
    document: dict[str, object] = {}
    for place, cell in enumerate(cells, 1):
        print(f"[{place}/{len(cells)}] {cell.stem}", file=sys.stderr, flush=True)
        found = run(cell, asked.data, asked.cache, again=asked.again)
        if "error" in found:
            failed.append(found)
            continue
        done.append(found | {"scores": scored(cell, asked.data, asked.cache)})
        document = summary(done, failed, asked)
        asked.out.write_text(json.dumps(document, indent=1) + "\n")
    if not done:
        sys.exit("no cell was finished: " + "; ".join(str(cell["error"]) for cell in failed))
    print(table(document))
    print(json.dumps({"results": os.path.relpath(asked.out), "cells": len(done), "failed": failed, **brief(document)}))
    sys.exit(1 if failed else 0)


def cells_of(asked: argparse.Namespace) -> list[Cell]:
    """What is to be measured; a contender that no seed changes is measured once."""
    contenders = (["motet"] if asked.motet else []) + (["motet_best"] if asked.best else []) + asked.rivals
    return [
        Cell(dataset, rival, seed, asked.threads, asked.time_limit or LIMITS[DATASETS[dataset]])
        for dataset in asked.data_sets
        for seed in asked.seeds
        for rival in contenders
        if not (rival in SEEDLESS and seed != asked.seeds[0])
        and not (rival == "lightgbm_per_task" and not dataset.startswith("tasks_"))
    ]


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    made.add_argument(
        "--data-sets", type=names(DATASETS, small=SMALL), default=list(DATASETS),
        help=f"of {', '.join(DATASETS)}; or small, for all but flights and census",
    )  # fmt: skip
    made.add_argument("--rivals", type=names(RIVALS), default=list(RIVALS), help="of " + ", ".join(RIVALS))
    made.add_argument("--motet", action="store_true", help="measure motet too")
    made.add_argument("--best", action="store_true", help="measure motet with --deploy best too")
    made.add_argument("--seeds", type=seeds, default=[0], help="such as 0,1,2 or 0..4")
    made.add_argument("--time-limit", type=float, help="seconds of fitting for each cell; else each table has its own")
    made.add_argument("--threads", type=int, default=2)
    made.add_argument("--out", type=Path, default=HERE / "results" / "tables.json")
    made.add_argument("--data", type=Path, default=DATA, help="the folder of the tables")
    made.add_argument("--cache", type=Path, default=CACHE, help="finished cells and their predictions")
    made.add_argument("--again", action="store_true", help="measure cells anew that are in the cache")
    made.add_argument("--cell", help=argparse.SUPPRESS)
    return made


def seeds(text: str) -> list[int]:
    """`0,2,5`, or `0..4` for all from 0 to 4."""
    first, dots, last = text.partition("..")
    return list(range(int(first), int(last) + 1)) if dots else [int(seed) for seed in text.split(",")]


def names(known: dict[str, object], **groups: list[str]) -> object:
    """A reader of comma-separated names, or of a group's, that must all be known."""

    def read(text: str) -> list[str]:
        asked = [one for name in text.split(",") if name for one in groups.get(name, [name])]
        strange = [name for name in asked if name not in known]
        if strange:
            message = f"no {', '.join(strange)}; there are: {', '.join(known)}"
            raise argparse.ArgumentTypeError(message)
        return asked

    return read


def run(cell: Cell, data: Path, cache: Path, *, again: bool) -> dict[str, object]:
    """The cell's numbers: from the cache if they are there and made by the same code, else from a new process."""
    file, code = cache / f"{cell.stem}.json", fingerprint(cell)
    if file.exists() and not again:
        found = json.loads(file.read_text())
        if found.get("code") == code:
            return found
    file.unlink(missing_ok=True)
    environment = os.environ | {"OMP_NUM_THREADS": str(cell.threads)}
    # Threads that wait must not spin: beside any other work on the machine that cost ten times the fit's time.
    environment.setdefault("OMP_WAIT_POLICY", "passive")
    command = [sys.executable, __file__, "--cell", json.dumps(vars(cell)), "--data", str(data), "--cache", str(cache)]
    patience = 3 * cell.time_limit + 120  # a contender that cannot be told a limit, and the timings after it
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=patience)
        error = "" if file.exists() else " | ".join(done.stderr.strip().splitlines()[-3:]) or f"exit {done.returncode}"
    except subprocess.TimeoutExpired:
        error = f"no result after {patience:g} seconds"
    if error:
        print(error, file=sys.stderr)
        return vars(cell) | {"error": error}
    found = json.loads(file.read_text())
    # Measured alone or beside other work: the reader of a time wants to know.
    found |= {"code": code, "commit": commit(), "versions": versions(), "load_average": os.getloadavg()[1]}
    found["measured"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    file.write_text(json.dumps(found))
    return found


def scored(cell: Cell, data: Path, cache: Path) -> dict[str, dict[str, float]]:
    """Every metric of every target of a finished cell; the resampled main metric goes to `<stem>.scores.npz`."""
    kept, code = cache / f"{cell.stem}.scores.json", hashlib.sha256((HERE / "_scores.py").read_bytes()).hexdigest()
    predictions = cache / f"{cell.stem}.npz"
    code += hashlib.sha256(predictions.read_bytes()).hexdigest()
    if kept.exists() and json.loads(kept.read_text())["code"] == code:
        return json.loads(kept.read_text())["scores"]
    scores, resampled = {}, {}
    with np.load(predictions) as arrays:
        for target, kind in DATASETS[cell.dataset](data).targets:
            truth, predicted = arrays[f"truth/{target}"].astype(np.float64), arrays[f"predicted/{target}"]
            scores[target], resampled[target] = score(kind, truth, predicted)
    np.savez_compressed(cache / f"{cell.stem}.scores.npz", **resampled)
    kept.write_text(json.dumps({"code": code, "scores": scores}))
    return scores


def fingerprint(cell: Cell) -> str:
    """A digest of the code that decides a cell's numbers."""
    if cell.rival in MOTETS:
        source = ROOT / "src" / "motet"
        rooms = ("tasks", "balance", "models", "data", "train", "tabular")  # what a fit runs through
        files = sorted(path for room in rooms for path in (source / room).rglob("*.py"))
    else:
        files = [HERE / name for name in ("_rivals.py", "_network.py", "_encoding.py")]
    files += [HERE / name for name in ("_cell.py", "_datasets.py")]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]


def commit() -> str:
    """The commit that is checked out, with a plus where files differ from it; empty outside of git."""
    git = ["git", "-C", str(ROOT)]
    found = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=False).stdout
    return found + ("+" if found and changed else "")


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def summary(done: list[dict], failed: list[dict], asked: argparse.Namespace) -> dict[str, object]:
    """Everything that a reader of the numbers needs, as JSON data."""
    sets = {name: DATASETS[name](asked.data) for name in dict.fromkeys(str(cell["dataset"]) for cell in done)}
    document = {
        "command": "python benchmarks/tables.py " + " ".join(sys.argv[1:]),
        "commit": commit(),
        "versions": versions(),
        "hardware": hardware(),
        "seeds": asked.seeds,
        "threads": asked.threads,
        "time_limit": asked.time_limit or "each table's",
        "data_sets": {
            name: {
                "rows": dict(dataset.frame["split"].value_counts(sort=True).rows()),
                "features": len(dataset.features),
                "targets": {
                    target: {"kind": kind, "metric": MAIN[kind][0], "higher_is_better": MAIN[kind][1]}
                    for target, kind in dataset.targets
                },
            }
            for name, dataset in sets.items()
        },
        "cells": done,
        "failed": failed,
        "against": {"reference": REFERENCE, "resamples": "500 of test rows, paired", "intervals": against(done, asked)},
    }
    return document | {"bars": bars(document, resampled_scores(done, asked.cache))}


def against(done: list[dict], asked: argparse.Namespace) -> dict[str, dict]:
    """For each data set, contender and target: the 95% interval of its score − LightGBM's, more being better."""
    resampled = resampled_scores(done, asked.cache)
    found: dict[str, dict] = {}
    for (dataset, rival), targets in resampled.items():
        theirs = resampled.get((dataset, REFERENCE))
        if rival == REFERENCE or theirs is None:
            continue
        kinds = dict(DATASETS[dataset](asked.data).targets)
        rows = found.setdefault(dataset, {}).setdefault(rival, {})
        for target, ours in targets.items():
            low, high = compare(kinds[target], ours, theirs[target])
            rows[target] = {"ci95": [low, high], "at_least_as_good": high >= 0}
    return found


def resampled_scores(done: list[dict], cache: Path) -> dict[tuple[str, str], dict[str, list[np.ndarray]]]:
    """The main metric on the resamples, one array a seed, by data set and contender and then by target."""
    resampled: dict[tuple[str, str], dict[str, list[np.ndarray]]] = {}
    for cell in done:
        targets = resampled.setdefault((cell["dataset"], cell["rival"]), {})
        stem = Cell(**{key: cell[key] for key in Cell.__dataclass_fields__}).stem
        with np.load(cache / f"{stem}.scores.npz") as arrays:
            for target in cell["scores"]:
                targets.setdefault(target, []).append(arrays[target])
    return resampled


def brief(document: dict[str, object]) -> dict[str, object]:
    """Main scores by data set, target and contender (the mean over seeds), for the last line and the table."""
    scores: dict[str, dict] = {}
    for cell in document["cells"]:
        targets = document["data_sets"][cell["dataset"]]["targets"]
        for target, metrics in cell["scores"].items():
            row = scores.setdefault(cell["dataset"], {}).setdefault(target, {})
            row.setdefault(cell["rival"], []).append(metrics[targets[target]["metric"]])
    means = {
        dataset: {t: {rival: round(float(np.mean(v)), 4) for rival, v in row.items()} for t, row in rows.items()}
        for dataset, rows in scores.items()
    }
    worse = {
        dataset: {
            rival: [target for target, one in rows.items() if not one["at_least_as_good"]]
            for rival, rows in rivals.items()
        }
        for dataset, rivals in document["against"]["intervals"].items()
    }
    return {"scores": means, "worse_than_lightgbm": worse, "bars": document["bars"]}


def table(document: dict[str, object]) -> str:
    """Scores and costs as text; a minus marks a score that is worse than LightGBM's, the interval lying below zero."""
    found, lines = brief(document), []
    for dataset, rows in found["scores"].items():
        rivals = list(dict.fromkeys(cell["rival"] for cell in document["cells"] if cell["dataset"] == dataset))
        targets = document["data_sets"][dataset]["targets"]
        lines += ["", f"{dataset:<32}" + "".join(f"{rival:>12}" for rival in rivals)]
        for target, row in rows.items():
            shown = []
            for rival in rivals:
                mark = "-" if target in found["worse_than_lightgbm"].get(dataset, {}).get(rival, []) else " "
                shown.append(f"{row[rival]:>11.4f}{mark}" if rival in row else f"{'':>12}")
            lines.append(f"{target + ' (' + targets[target]['metric'] + ')':<32}" + "".join(shown))
        costs = {"fit_seconds": 1, "cpu_seconds": 1, "row_ms": 1, "rows_10000_ms": 1}
        for cost, unit in (costs | {"artefact_bytes": 1e6, "peak_rss_bytes": 1e6}).items():
            by_rival = {
                r: [c[cost] for c in document["cells"] if (c["dataset"], c["rival"]) == (dataset, r)] for r in rivals
            }
            name = cost.replace("_bytes", " (MB)").replace("_", " ")
            lines.append(f"{name:<32}" + "".join(f"{np.median(by_rival[r]) / unit:>11.2f} " for r in rivals))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
