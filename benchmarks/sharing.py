"""What sharing architectures cost: sparse beside dense experts, one task beside all of them, and ours beside peers.

    python benchmarks/sharing.py --out benchmarks/results/sharing.json
    python benchmarks/sharing.py --only peers --peers DIR --out benchmarks/results/sharing_peers.json

CPU time, one thread. Every figure is a ratio of two ways that ran in turn in one process: of their least times; the
pairs' median and range stand beside it. DIR holds the peers, as benchmarks/README.md says.
"""

import argparse
import importlib.metadata
import json
import math
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from _sharing_peers import INPUTS, PEERS, SHAPES, Ours, Shape, disagreement
from torch import Tensor, nn

from motet.models.blocks import Experts, Gate, Mix, TopKRoute, _mix
from motet.models.sharing import from_name

SPARSE = ((16, 4, 1024, 256), (16, 4, 128, 64), (8, 2, 128, 64))  # experts, chosen, width, middle
BATCHES = (32, 256, 2048)
TASKS = 6
PARTS = ("sparse", "one", "peers")
ONE_OF_SIX = (
    ("cgc", {}), ("ple", {}), ("ple", {"shared_reads": "shared"}), ("home", {}), ("task_gated", {}),
    ("task_gated", {"num_blocks": 3}), ("nested", {}), ("skillnet", {}), ("attention", {}), ("mmoe", {}),
    ("cascaded", {}), ("bridged", {}), ("task_expert", {}), ("ecmt", {}), ("dtrn", {}),
)  # fmt: skip


class AllExperts(nn.Module):
    """A sparse mix that is told that sending rows apart is never worth it: every expert for every row."""

    def __init__(self, mix: Mix) -> None:
        super().__init__()
        self.mix = mix

    def forward(self, rows: Tensor) -> Tensor:
        """Maps (B, F) to (1, B, F)."""
        kept, _mix.WORTH = _mix.WORTH, math.inf
        try:
            return self.mix(rows)
        finally:
            _mix.WORTH = kept


def sparse(num_experts: int, k: int, width: int, middle: int, batch: int, repeats: int) -> list[dict[str, object]]:
    """The time of the chosen experts over that of all experts, forward alone and with backward."""
    torch.manual_seed(0)
    mix = Mix(Experts(num_experts, width, (middle, width), last=False), TopKRoute(Gate(1, num_experts, width), k))
    every, rows = AllExperts(mix), torch.randn(batch, width)
    assert torch.allclose(mix(rows), every(rows), atol=1e-4)
    cells = []
    for backward in (False, True):
        found = ratios(step(mix, rows, backward=backward), step(every, rows, backward=backward), repeats)
        shape = {"experts": num_experts, "chosen": k, "width": width, "middle": middle, "batch": batch}
        cells.append({"what": "chosen / all experts", **shape, "backward": backward, **found})
    return cells


def one_task(name: str, settings: dict[str, int | str], batch: int, repeats: int) -> dict[str, object]:
    """The time of one task's forward pass over that of all six."""
    torch.manual_seed(0)
    net = from_name(name, TASKS, width=256, settings=settings).eval()
    rows = torch.randn(batch, 256)
    with torch.inference_mode():
        found = ratios(lambda: net(rows, [2]), lambda: net(rows), repeats)
    return {
        "what": "one task / six tasks",
        "sharing": name,
        "settings": settings,
        "width": 256,
        "batch": batch,
        **found,
    }


def beside(name: str, shape: Shape, batch: int, repeats: int) -> list[dict[str, object]]:
    """The time of ours over that of a peer of the same sizes, and what each keeps for the backward pass."""
    torch.manual_seed(0)
    peer, ours, rows = PEERS[name](shape), Ours(shape), torch.randn(batch, INPUTS)
    apart = disagreement(shape, peer, rows[:64])
    assert apart < 1e-6, (name, shape, apart)
    sizes = {"kind": shape.kind, "tasks": shape.tasks, "experts": shape.experts, "dims": list(shape.dims)}
    kept = {"first_kept_mb": kept_mb(ours, rows), "second_kept_mb": kept_mb(peer, rows), "disagreement": apart}
    return [
        {"what": f"ours / {name}", **sizes, "batch": batch, "backward": backward, **kept,
         **ratios(step(ours, rows, backward=backward), step(peer, rows, backward=backward), repeats)}
        for backward in (False, True)
    ]  # fmt: skip


def kept_mb(module: nn.Module, rows: Tensor) -> float:
    """Millions of bytes that a forward pass keeps for its backward pass, weights not counted."""
    own = {part.untyped_storage().data_ptr() for part in module.parameters()}
    found: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs = module(rows)
        total = sum(found.values())
    del outputs
    return round(total / 1e6, 2)


def step(module: nn.Module, rows: Tensor, *, backward: bool) -> Callable[[], None]:
    """One forward pass, or one with its backward."""

    def run() -> None:
        if not backward:
            with torch.inference_mode():
                module(rows)
            return
        module.zero_grad(set_to_none=True)
        module(rows.detach().requires_grad_()).square().sum().backward()

    return run


def ratios(first: Callable[[], object], second: Callable[[], object], repeats: int) -> dict[str, float]:
    """The ratio of the least CPU times of two ways, run in turn: other work on the machine only ever adds to a time."""
    first(), second()
    found = [(seconds(first), seconds(second)) for _ in range(repeats)]
    shares = [a / b for a, b in found]
    return {
        "ratio": round(min(a for a, _ in found) / min(b for _, b in found), 3),
        "median": round(statistics.median(shares), 3), "low": round(min(shares), 3), "high": round(max(shares), 3),
        "first_ms": round(1e3 * statistics.median(a for a, _ in found), 3),
        "second_ms": round(1e3 * statistics.median(b for _, b in found), 3),
    }  # fmt: skip


def seconds(run: Callable[[], object]) -> float:
    """CPU seconds of a run, short ones several times over."""
    begun, times = time.process_time(), 0
    while times == 0 or (time.process_time() - begun < 0.02 and times < 200):
        run()
        times += 1
    return (time.process_time() - begun) / times


def measured(parts: Sequence[str], repeats: int) -> Iterator[dict[str, object]]:
    """Every cell of the parts, one after another."""
    if "sparse" in parts:
        for shape in SPARSE:
            for batch in BATCHES:
                yield from sparse(*shape, batch, repeats)
    if "one" in parts:
        for named in ONE_OF_SIX:
            yield from (one_task(*named, batch, repeats) for batch in (256, 2048))
    if "peers" in parts:
        for sizes in SHAPES:
            for batch in sizes.batches:
                for name in PEERS:
                    yield from beside(name, sizes, batch, repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--only", choices=PARTS, help="one part; without it all, peers where there is --peers")
    parser.add_argument("--peers", type=Path, help="folder that holds deepctr_torch and torch_rechub")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    parts = [options.only] if options.only else [part for part in PARTS if part != "peers" or options.peers]
    if "peers" in parts:
        if options.peers is None:
            parser.error("--only peers needs --peers DIR")
        sys.path.append(str(options.peers))
    cells = []
    for cell in measured(parts, options.repeats):
        print({key: value for key, value in cell.items() if key not in {"low", "high"}}, flush=True)
        cells.append(cell)
    found = importlib.metadata.distributions(path=[str(options.peers)]) if options.peers else ()
    words = ["DIR" if word == str(options.peers) else word for word in sys.argv[1:]]
    result = {
        "command": " ".join(["python", "benchmarks/sharing.py", *words]), "torch": torch.__version__,
        "peers": {peer.name: peer.version for peer in found}, "threads": 1,
        "machine": {"system": platform.system(), "processor": platform.machine(), "python": platform.python_version()},
        "cells": cells,
    }  # fmt: skip
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({"cells": len(cells)}))


if __name__ == "__main__":
    main()
