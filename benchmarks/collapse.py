"""Do experts die, and is a shared expert left unused? MMoE and HoME on cases made to bring it about.

    python benchmarks/collapse.py --out benchmarks/results/collapse.json

Features with heavy tails and six tasks in two groups, those of the second with few positives; Adam with a brisk rate.
`centred`: each feature has mean zero and variance one; `raw`: none is centred, and their scales lie a hundredfold
apart. On rows of its own, an expert is dead where more than 90% of its activations are zero: below a hundredth of the
root mean square over all experts of its level, so that a smooth activation counts as well as ReLU's exact zero. A
shared expert is unused where no reader gives it as much as a tenth of an even share on average.
"""

import argparse
import functools
import json
import math
import platform
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from motet.models.blocks import Mix
from motet.models.sharing import from_name

FEATURES, TASKS, WIDTH = 48, 6, 64
ROWS, TEST_ROWS, BATCH, STEPS, RATE = 8192, 4096, 256, 400, 3e-2
CASES = ("centred", "raw")
ZERO, DEAD, UNUSED = 0.01, 0.9, 0.1
SHARED = {"mmoe": {"": range(8)}, "home": {"below": range(4, 8), "above": range(4, 6)}}  # experts that all may read
SETTINGS: dict[str, dict[str, Any]] = {
    "mmoe": {"num_experts": 8, "dims": [WIDTH, WIDTH]}, "home": {"expert_width": WIDTH, "rank": 16}
}  # fmt: skip


def made(case: str, rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Features (N, F) and labels (N, T): three tasks of one direction and three rare ones of another."""
    hidden = torch.randn(rows, FEATURES, generator=generator)
    counts = hidden.exp()  # log-normal: mean √e, variance e² − e
    features = (counts - math.e**0.5) / (math.e**2 - math.e) ** 0.5
    if case == "raw":
        features = torch.logspace(-1, 1, FEATURES) * (counts + 1)
    angles = torch.Generator().manual_seed(17)  # the same directions for every part of the data
    ways = torch.randn(2, FEATURES, generator=angles) / FEATURES**0.5
    own = torch.randn(TASKS, FEATURES, generator=angles) / FEATURES**0.5
    scores = hidden @ (ways.repeat_interleave(TASKS // 2, dim=0) + 0.5 * own).T
    bars = torch.tensor([0.0] * (TASKS // 2) + [2.0] * (TASKS // 2))
    return features, (scores + 0.3 * torch.randn(scores.shape, generator=generator) > bars).float()


def trained(name: str, case: str, seed: int) -> tuple[nn.Module, Tensor, float]:
    """The trained module, rows it has not seen, and its mean log loss there."""
    generator = torch.Generator().manual_seed(seed)
    (rows, labels), (test, test_labels) = made(case, ROWS, generator), made(case, TEST_ROWS, generator)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = from_name(name, TASKS, width=FEATURES, settings=SETTINGS[name])
        heads = nn.Parameter(torch.randn(TASKS, WIDTH, 1) / WIDTH**0.5)
    adam = torch.optim.Adam([*net.parameters(), heads], lr=RATE)
    for _ in range(STEPS):
        places = torch.randint(ROWS, (BATCH,), generator=generator)
        loss = functional.binary_cross_entropy_with_logits(outputs(net, heads, rows[places]), labels[places])
        adam.zero_grad()
        loss.backward()
        adam.step()
    net.eval()
    with torch.no_grad():
        lost = functional.binary_cross_entropy_with_logits(outputs(net, heads, test), test_labels)
    return net, test, float(lost)


def outputs(net: nn.Module, heads: Tensor, rows: Tensor) -> Tensor:
    """Logits (B, T)."""
    return (net(rows) @ heads).squeeze(-1).T


@torch.no_grad()
def looked_at(name: str, net: nn.Module, rows: Tensor) -> dict[str, dict[str, list[float]]]:
    """By level: each expert's share of zeros, and each shared expert's largest mean weight over an even share."""
    seen: dict[str, dict[str, Any]] = {}
    handles = []
    for level in SHARED[name]:
        mix = getattr(net, level or "mix")
        assert isinstance(mix, Mix)
        seen[level] = {}
        handles.append(mix.experts.register_forward_hook(functools.partial(_keep, seen[level], "values")))
        handles.append(mix.route.register_forward_hook(functools.partial(_keep, seen[level], "weights")))
    net(rows)
    for handle in handles:
        handle.remove()
    result = {}
    for level, shared in SHARED[name].items():
        values, weights = seen[level]["values"], seen[level]["weights"].weights
        zero = (values.abs() < ZERO * values.square().mean().sqrt()).float().mean(dim=(1, 2))
        readers = (weights > 0).any(dim=1).sum(dim=1, keepdim=True)  # how many experts each output may read
        even = (weights.mean(dim=1) * readers).amax(dim=0)
        result[level or "mix"] = {
            "zeros": [round(float(share), 3) for share in zero],
            "shared_use": [round(float(even[expert]), 3) for expert in shared],
        }
    return result


def _keep(found: dict[str, Any], what: str, _module: nn.Module, _inputs: object, output: object) -> None:
    found[what] = output


def measured(name: str, case: str, seed: int) -> dict[str, Any]:
    """One training: what its experts look like, and how many are dead or unused."""
    net, rows, lost = trained(name, case, seed)
    levels = looked_at(name, net, rows)
    return {
        "sharing": name, "case": case, "seed": seed, "log_loss": round(lost, 4), "levels": levels,
        "experts": sum(len(level["zeros"]) for level in levels.values()),
        "dead": sum(share > DEAD for level in levels.values() for share in level["zeros"]),
        "shared": sum(len(level["shared_use"]) for level in levels.values()),
        "unused": sum(use < UNUSED for level in levels.values() for use in level["shared_use"]),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=5, help="how many, from 0")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    cells = [measured(name, case, seed) for case in CASES for name in SHARED for seed in range(asked.seeds)]
    for cell in cells:
        print({key: value for key, value in cell.items() if key != "levels"}, flush=True)
    words = " ".join(["python", "benchmarks/collapse.py", *sys.argv[1:]])
    document = {"command": words, "torch": torch.__version__, "python": platform.python_version(), "cells": cells}
    if asked.out:
        asked.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
