"""How long methods take to decide from a Gramian, and whether MGDA's point is the least one.

    python benchmarks/solvers.py --out benchmarks/results/solvers.json

Milliseconds of one thread's CPU time, the median over Gramians of random gradients; T tasks, P = 4 T numbers each.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor

from motet.balance import View, from_name

METHODS = ("nash-mtl", "mgda", "cagrad", "upgrad", "fairgrad", "imtl-g", "aligned-mtl", "pcgrad")


class Given(View):
    """A view that holds a Gramian and nothing else."""

    def __init__(self, gramian: Tensor) -> None:
        names = [f"t{place}" for place in range(len(gramian))]
        losses = {name: torch.tensor(1.0, dtype=torch.float64, requires_grad=True) for name in names}
        super().__init__(losses, [torch.zeros(1, requires_grad=True)], None, method="benchmark")
        self.__dict__["gramian"] = gramian


def measure(name: str, grams: list[Tensor]) -> dict[str, float]:
    """The median milliseconds of a decision, and the worst."""
    took = []
    for place, gram in enumerate([grams[0], *grams]):
        method, view = from_name(name), Given(gram)
        begun = time.process_time()
        method.update(view)
        if place:  # the first call warms up
            took.append(1e3 * (time.process_time() - begun))
    return {"median_ms": round(statistics.median(took), 3), "worst_ms": round(max(took), 3)}


def suboptimality(grams: list[Tensor]) -> float:
    """How far MGDA's weights are from optimal: the largest (wᵀ G w − min_k (G w)_k) / wᵀ G w; zero at the optimum."""
    worst = 0.0
    for gram in grams:
        weights = from_name("mgda").update(Given(gram)).weights
        moved = gram @ weights.to(gram)
        square = float(weights.to(gram) @ moved)
        worst = max(worst, (square - float(moved.min())) / square)
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=25)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    draw = torch.Generator().manual_seed(0)
    rows = [
        torch.randn(options.tasks, 4 * options.tasks, generator=draw, dtype=torch.float64)
        for _ in range(options.repeats)
    ]
    grams = [part @ part.T for part in rows]
    found = {
        "command": f"python benchmarks/solvers.py --tasks {options.tasks} --repeats {options.repeats}",
        "torch": torch.__version__,
        "tasks": options.tasks,
        "methods": {name: measure(name, grams) for name in METHODS},
        "mgda_suboptimality": suboptimality(grams),
    }
    for name, cell in found["methods"].items():
        print(f"{name:14}{cell['median_ms']:>8.3f} ms  at most {cell['worst_ms']:.3f}")
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
