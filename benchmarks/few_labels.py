"""One target with a label in one training row of a hundred: does it gain, and do the others lose?

    python benchmarks/few_labels.py --out benchmarks/results/few_labels.json

For each table and seed two fits of the same rows: of all targets, where all but 1% of the train and validation rows
have lost the label of one, and of the others without it. On the test rows, whose labels are all there: the scarce
target against the best of its own models, as the run itself compares them, and each other target of the first fit
against the second. Intervals of 95% resample the test rows, in pairs, each with its mean over seeds.
"""

import argparse
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from _datasets import DATA, DATASETS, SPLIT, Dataset
from _scores import MAIN, compare, score

import motet

ROWS = {"train": 20_000, "validation": 4_000, "test": 10_000}
SCARCE = {"flights": "arr_delay", "census": "never_married"}
SHARE = 0.01
MAKERS = {"regression": "Regression", "binary": "Binary", "multiclass": "Multiclass", "count": "Count"}


def drawn(dataset: Dataset, seed: int) -> pl.DataFrame:
    """Some rows of each split, in the table's order."""
    draw = np.random.default_rng([seed, 1])
    parts = [
        part[np.sort(draw.permutation(part.height)[: ROWS[name]])] for name in ROWS for part in [dataset.part(name)]
    ]
    return pl.concat(parts)


def without(frame: pl.DataFrame, target: str, seed: int) -> pl.DataFrame:
    """The target's label in a hundredth of the rows that are not for testing, and in all that are."""
    draw = np.random.default_rng([seed, 2])
    kept = (frame[SPLIT] == "test").to_numpy() | (draw.random(frame.height) < SHARE)
    return frame.with_columns(pl.when(pl.Series(kept)).then(pl.col(target)).alias(target))


def fitted(dataset: Dataset, frame: pl.DataFrame, targets: list[str], seed: int, seconds: float) -> Any:
    """A model of these targets."""
    kinds = dict(dataset.targets)
    tasks = [getattr(motet, MAKERS[kinds[name]])(name) for name in targets]
    model = motet.TabularModel(targets=tasks, time_limit=seconds, seed=seed, split_column=SPLIT)
    return model.fit(frame.select(*dataset.features, *targets, SPLIT))


def resampled(model: Any, kind: str, target: str, test: pl.DataFrame, features: list[str]) -> np.ndarray:
    """The main metric of its predictions on each resample of the test rows."""
    found = np.asarray(model.estimate(test.select(features))[target])
    known = test[target].is_not_null().to_numpy()
    labels = test[target].filter(pl.Series(known))
    classes = [str(name) for name in model.task(target).classes] if kind in ("binary", "multiclass") else []
    truth = np.array([classes.index(str(one)) for one in labels]) if classes else labels.to_numpy()
    if kind == "binary" and found.ndim == 2:
        found = found[:, 1]
    return score(kind, truth.astype(np.float64), found[known])[1]


def measured(name: str, dataset: Dataset, seed: int, seconds: float) -> dict[str, Any]:
    """Both fits of one table and seed."""
    scarce, kinds = SCARCE[name], dict(dataset.targets)
    others = [target for target in kinds if target != scarce]
    frame = drawn(dataset, seed)
    test = frame.filter(pl.col(SPLIT) == "test")
    beside = fitted(dataset, without(frame, scarce, seed), [scarce, *others], seed, seconds)
    apart = fitted(dataset, frame, others, seed, seconds)
    own = beside.metrics_["tasks"][scarce]
    labelled = beside.metrics_["rows"]["labelled"][scarce]
    return {
        "table": name, "seed": seed, "scarce": scarce, "labelled": labelled,
        "own_model": {key: own[key] for key in ("metric", "single_task", "motet", "gain_percent", "ci95", "served_by")},
        "others": {
            target: [resampled(model, kinds[target], target, test, dataset.features) for model in (beside, apart)]
            for target in others
        },
    }  # fmt: skip


def over_seeds(cells: list[dict[str, Any]], kinds: dict[str, str]) -> dict[str, Any]:
    """Each other target beside the scarce one minus without it, more being better."""
    found = {}
    for target in cells[0]["others"]:
        pairs = [cell["others"][target] for cell in cells]
        beside, apart = ([pair[place] for pair in pairs] for place in (0, 1))
        low, high = compare(kinds[target], beside, apart)
        means = [round(float(np.mean([one.mean() for one in part])), 5) for part in (beside, apart)]
        found[target] = {
            "metric": MAIN[kinds[target]][0], "beside": means[0], "without": means[1], "ci95": [low, high],
            "loses_nothing": high >= 0,
        }  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0")
    parser.add_argument("--time-limit", type=float, default=60, help="seconds of each fit")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    tables: dict[str, Any] = {}
    for name in SCARCE:
        dataset = DATASETS[name](asked.data)
        cells = []
        for seed in range(asked.seeds):
            cells.append(measured(name, dataset, seed, asked.time_limit))
            print(name, seed, cells[-1]["labelled"], cells[-1]["own_model"], file=sys.stderr, flush=True)
        kept = [{key: value for key, value in cell.items() if key != "others"} for cell in cells]
        tables[name] = {"seeds": kept, "others": over_seeds(cells, dict(dataset.targets))}
    words = ["DIR" if word == str(asked.data) else word for word in sys.argv[1:]]
    document = {
        "command": " ".join(["python", "benchmarks/few_labels.py", *words]), "motet": motet.__version__,
        "python": platform.python_version(), "cores": os.cpu_count(), "rows": ROWS, "tables": tables,
    }  # fmt: skip
    if asked.out:
        asked.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({name: table["others"] for name, table in tables.items()}))


if __name__ == "__main__":
    main()
