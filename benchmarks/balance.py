"""What balancing costs: ratios to one plain sum-of-losses step, in one run, one thread, process CPU time.

    python benchmarks/balance.py --out benchmarks/results/balance.json
    python benchmarks/balance.py --cosines --tasks 8 --repeats 16 --out benchmarks/results/balance_cosines.json

The second measures how near the sketch's direction is to the exact one, on nets as they start and after 40 steps of
Adam. TorchJD and LibMTL are measured beside motet where they are installed (dependency group `parity`). With
`--device cuda` it is wall time, and memory is the allocator's.
"""

import argparse
import importlib
import importlib.util
import itertools
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

NETS = ("mlp", "resnet", "transformer")
TASKS = {"mlp": (2, 8, 16, 40), "resnet": (8,), "transformer": (8,)}
WAYS = (
    "equal", "famo", "upgrad features", "upgrad sketch", "upgrad exact", "upgrad own rows", "upgrad own forwards",
    "torchjd autogram", "torchjd autojac", "libmtl imtl",
)  # fmt: skip
PEERS = {"torchjd": "torchjd", "libmtl": "LibMTL"}


class Block(nn.Module):
    """A residual block of two convolutions."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.GroupNorm(8, outputs), nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.GroupNorm(8, outputs),
        )  # fmt: skip
        plain = stride == 1 and inputs == outputs
        self.skip = nn.Identity() if plain else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Maps (N, C, H, W) to (N, C', H', W')."""
        return torch.relu(self.body(images) + self.skip(images))


class Transformer(nn.Module):
    """Two encoder layers over 32 tokens, their mean as the feature."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(128, 4, 512, dropout=0.0, batch_first=True, norm_first=True)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Maps (N, S, F) to (N, F)."""
        return self.body(tokens).mean(dim=1)


def trunk_of(net: str) -> tuple[nn.Module, Tensor, int]:
    """The trunk, a batch for it, and the width of its features."""
    if net == "mlp":
        sizes = [64, 1024, 1024, 1024, 1024]
        layers = [part for a, b in itertools.pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
        return nn.Sequential(*layers), torch.randn(256, 64), 1024
    if net == "resnet":
        widths = [
            (64, 64, 1),
            (64, 64, 1),
            (64, 128, 2),
            (128, 128, 1),
            (128, 256, 2),
            (256, 256, 1),
            (256, 512, 2),
            (512, 512, 1),
        ]
        body = [
            nn.Conv2d(3, 64, 3, 1, 1, bias=False),
            nn.GroupNorm(8, 64),
            nn.ReLU(),
            *(Block(*width) for width in widths),
        ]
        return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten()), torch.randn(16, 3, 32, 32), 512
    return Transformer(), torch.randn(32, 32, 128), 128


class Problem:
    """A trunk, T linear heads and squared losses.

    Args:
        net: which trunk.
        num_tasks: T.
        form: "every row" has a label of every task; else each row is of one task: "own rows" of one forward pass, or
            "own forwards", one a task.
        device: where all of it is.
    """

    def __init__(self, net: str, num_tasks: int, form: str = "every row", device: str = "cpu") -> None:
        self.form = form
        torch.manual_seed(0)
        self.trunk, self.inputs, width = trunk_of(net)
        self.heads = nn.ModuleList([nn.Linear(width, 1) for _ in range(num_tasks)])
        self.targets = torch.randn(num_tasks, len(self.inputs)).to(device)
        self.trunk, self.heads, self.inputs = self.trunk.to(device), self.heads.to(device), self.inputs.to(device)
        self.parameters = [*self.trunk.parameters(), *self.heads.parameters()]

    def losses(self) -> tuple[Tensor, dict[str, Tensor]]:
        """The features and the losses of one forward pass."""
        if self.form == "own forwards":
            features = [self.trunk(rows) for rows in self.inputs.tensor_split(len(self.heads))]
        else:
            features = self.trunk(self.inputs)
        parts = features.tensor_split(len(self.heads)) if self.form == "own rows" else features
        parts = [features] * len(self.heads) if self.form == "every row" else parts
        labels = self.targets if self.form == "every row" else self.targets[0].tensor_split(len(self.heads))
        pairs = zip(self.heads, parts, labels, strict=True)
        return features, {str(k): (head(z)[:, 0] - y).square().mean() for k, (head, z, y) in enumerate(pairs)}

    def clear(self) -> None:
        """Drops all gradients."""
        for parameter in self.parameters:
            parameter.grad = None


def plain(problem: Problem) -> Callable[[], None]:
    def step() -> None:
        problem.clear()
        sum(problem.losses()[1].values()).backward()

    return step


def way(name: str, problem: Problem) -> Callable[[], None]:
    """One step of a way to balance."""
    if name.startswith("torchjd"):
        return _torchjd(name, problem)
    if name.startswith("libmtl"):
        return _libmtl(name, problem)
    from motet.balance import UPGrad, from_name

    balancer = UPGrad(gramian="sketch") if name == "upgrad sketch" else from_name(name.split(maxsplit=1)[0])

    def step() -> None:
        problem.clear()
        features, losses = problem.losses()
        if name.endswith("features"):
            balancer.backward(losses, features=features)
        elif name.startswith("upgrad"):
            balancer.backward(losses, shared=problem.trunk.parameters())
        else:
            balancer.backward(losses)
        if name == "famo":
            with torch.no_grad():
                balancer.after_step(problem.losses()[1])

    return step


def _torchjd(name: str, problem: Problem) -> Callable[[], None]:
    from torchjd.aggregation import UPGrad, UPGradWeighting
    from torchjd.autogram import Engine
    from torchjd.autojac import jac_to_grad, mtl_backward

    if name.endswith("autogram"):
        engine, weighting = Engine(problem.trunk, batch_dim=None), UPGradWeighting()

        def step() -> None:
            problem.clear()
            losses = torch.stack(list(problem.losses()[1].values()))
            losses.backward(weighting(engine.compute_gramian(losses)))

        return step
    aggregator = UPGrad()

    def step() -> None:
        problem.clear()
        features, losses = problem.losses()
        mtl_backward(list(losses.values()), features=features)
        jac_to_grad(list(problem.trunk.parameters()), aggregator)

    return step


def _libmtl(name: str, problem: Problem) -> Callable[[], None]:
    """A weighting of LibMTL; its package imports torchvision, so that only the folder of weightings is loaded."""
    package = types.ModuleType("LibMTL")
    package.__path__ = list(importlib.util.find_spec("LibMTL").submodule_search_locations)
    sys.modules["LibMTL"] = package
    kind = name.split()[1].upper()
    weighting = getattr(importlib.import_module(f"LibMTL.weighting.{kind}"), kind)()
    weighting.task_num, weighting.device, weighting.rep_grad = len(problem.heads), "cpu", False
    weighting.get_share_params = problem.trunk.parameters
    weighting.zero_grad_share_params = lambda: problem.trunk.zero_grad(set_to_none=False)
    weighting.init_param()

    def step() -> None:
        problem.clear()
        weighting.backward(torch.stack(list(problem.losses()[1].values())))

    return step


def measure(net: str, num_tasks: int, name: str, repeats: int, device: str) -> dict[str, object]:
    """The ratio of CPU times, a plain step and the other in turn, and the memory that the steps added."""
    torch.set_num_threads(1)
    # A net each: TorchJD's engine hooks into its own.
    form = name.removeprefix("upgrad ") if "own" in name else "every row"
    first = plain(Problem(net, num_tasks, form, device))
    second = way(name, Problem(net, num_tasks, form, device))
    first()
    _import_late()
    before = _peak(device)
    second()
    after = _peak(device)
    ratios = [_seconds(second, device) / _seconds(first, device) for _ in range(repeats)]
    return {
        "net": net, "tasks": num_tasks, "way": name, "ratio": round(statistics.median(ratios), 3),
        "low": round(min(ratios), 3), "high": round(max(ratios), 3), "added_mb": round((after - before) / 1e6, 1),
    }  # fmt: skip


def cosines(net: str, num_tasks: int, draws: int, device: str) -> list[dict[str, object]]:
    """Cosines of UPGrad's direction by the sketch to the exact one, untrained and after 40 steps of Adam."""
    torch.set_num_threads(1)
    problem = Problem(net, num_tasks, device=device)
    found = [{"net": net, "tasks": num_tasks, "trained": False, **_drawn(problem, draws)}]
    optimizer = torch.optim.Adam(problem.parameters, lr=1e-3)
    step = plain(problem)
    for _ in range(40):
        step()
        optimizer.step()
    return [*found, {"net": net, "tasks": num_tasks, "trained": True, **_drawn(problem, draws)}]


def _drawn(problem: Problem, draws: int) -> dict[str, object]:
    from motet.balance import Step, UPGrad

    def decide(balancer: UPGrad) -> Step:
        problem.clear()
        return balancer.backward(problem.losses()[1], shared=problem.trunk.parameters())

    exact, sketch = decide(UPGrad()), UPGrad(gramian="sketch")
    gramian, right = exact.gramian.double().cpu(), torch.tensor(list(exact.weights.values()), dtype=torch.float64)

    def cosine(weights: Tensor) -> float:
        # ⟨Σ a_i g_i, Σ b_j g_j⟩ = aᵀ G b: the directions need not be formed.
        return float(right @ gramian @ weights / ((right @ gramian @ right) * (weights @ gramian @ weights)).sqrt())

    steps = [decide(sketch) for _ in range(draws)]
    values = sorted(cosine(torch.tensor(list(step.weights.values()), dtype=torch.float64)) for step in steps)
    return {
        "source": steps[0].source, "draws": draws, "mean": round(statistics.mean(values), 4),
        "median": round(statistics.median(values), 4), "least": round(values[0], 4),
        "equal_weights": round(cosine(torch.ones_like(right)), 4),
    }  # fmt: skip


def _seconds(step: Callable[[], None], device: str) -> float:
    if device == "cpu":
        begun = time.process_time()
        step()
        return time.process_time() - begun
    torch.cuda.synchronize()
    begun = time.perf_counter()
    step()
    torch.cuda.synchronize()
    return time.perf_counter() - begun


def _import_late() -> None:
    """Imports what torch imports at the first gradient that is given to a backward: 480 modules, no part of a step."""
    value = torch.ones(1, requires_grad=True)
    torch.autograd.grad(value * 2, value, torch.ones(1))


def _peak(device: str) -> float:
    if device != "cpu":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _processor(device: str) -> str:
    if device != "cpu":
        return torch.cuda.get_device_name()
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nets", default=",".join(NETS))
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--tasks", default="", help="numbers of tasks; each net's own when empty")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", default="cpu", help="cpu, by one thread's CPU time; or cuda, by wall time")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--cosines", action="store_true", help="the sketch's direction in the place of times")
    parser.add_argument("--cell", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cell:
        net, tasks, name = json.loads(options.cell)
        print(json.dumps(measure(net, tasks, name, options.repeats, options.device)))
        return
    cells = measured_cosines(options) if options.cosines else measured_times(options)
    result = {
        "command": " ".join(["python", "benchmarks/balance.py", *sys.argv[1:]]), "torch": torch.__version__,
        "machine": {
            "system": platform.system(), "processor": _processor(options.device), "python": platform.python_version(),
        },
        "cells": cells,
    }  # fmt: skip
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({"cells": len(cells), "failed": sum("error" in cell for cell in cells)}))


def measured_cosines(options: argparse.Namespace) -> list[dict[str, object]]:
    """A cell for each net, number of tasks and state of training."""
    cells: list[dict[str, object]] = []
    for net in options.nets.split(","):
        for tasks in [int(word) for word in options.tasks.split(",") if word] or TASKS[net]:
            for cell in cosines(net, tasks, options.repeats, options.device):
                cells.append(cell)
                print(json.dumps(cell), flush=True)
    return cells


def measured_times(options: argparse.Namespace) -> list[dict[str, object]]:
    """A cell for each net, number of tasks and way to balance."""
    ways = [
        name
        for name in options.ways.split(",")
        if not (peer := PEERS.get(name.split()[0])) or importlib.util.find_spec(peer)
    ]
    cells = []
    for net in options.nets.split(","):
        for tasks in [int(word) for word in options.tasks.split(",") if word] or TASKS[net]:
            for name in ways:
                # A process for each cell: peak memory is a process's, and one library's caches are not another's.
                words = [
                    sys.executable,
                    __file__,
                    "--cell",
                    json.dumps([net, tasks, name]),
                    "--repeats",
                    str(options.repeats),
                    "--device",
                    options.device,
                ]
                done = subprocess.run(words, capture_output=True, text=True, check=False)
                found = (
                    json.loads(done.stdout.splitlines()[-1])
                    if done.returncode == 0
                    else {"net": net, "tasks": tasks, "way": name, "error": done.stderr[-300:]}
                )
                cells.append(found)
                shown = f"{found.get('ratio', 'failed'):>8}  +{found.get('added_mb', 0)} MB"
                print(f"{net:12} T={tasks:<3} {name:18} {shown}", flush=True)
    return cells


if __name__ == "__main__":
    main()
