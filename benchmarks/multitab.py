"""What MultiTab-Net costs to train: rows a second beside the published model's shape, by columns and by tasks.

    python benchmarks/multitab.py --out benchmarks/results/multitab.json

The reference is built from the paper's and the released code's description, at the same width: attention between the
columns of a row, then a layer over whole rows of width (T + S) · F, whose attention is between the rows of the batch
(`rows`) or, as in the released code with rotary positions, over a single key (`single`). All run one training step in
turn in one process, CPU time, one thread; a figure is the least of the repeats.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from motet.models import MultiTaskModel, TokenEncoder
from motet.models.sharing import MultiTabNet
from motet.tasks import Regression

WIDTH, HEADS, HIDDEN, HEAD_WIDTH = 16, 4, 256, 64  # the published sizes
SHAPES = (("acs", 10, 2), ("higgs", 21, 8), ("synthetic", 32, 7))  # columns and tasks of the published tables
COLUMNS, TASKS = (8, 16, 32, 64), (2, 4, 8, 16, 32)


class Layer(nn.Module):
    """Pre-norm attention and a small network, as torch has them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, HEADS, batch_first=True)
        self.network = nn.Sequential(nn.Linear(width, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, width))

    def forward(self, values: Tensor, blocked: Tensor | None = None) -> Tensor:
        """Maps (B, S, width) to the same."""
        read = self.first(values)
        values = values + self.attention(read, read, read, attn_mask=blocked, need_weights=False)[0]
        return values + self.network(self.second(values))


class Reference(nn.Module):
    """The published shape: one block over columns, one over rows, a head for each task."""

    def __init__(self, num_columns: int, num_tasks: int, *, between: str) -> None:
        super().__init__()
        self.num_tasks, self.between = num_tasks, between
        self.weight = nn.Parameter(torch.randn(num_columns, WIDTH) * 0.01)
        self.bias = nn.Parameter(torch.zeros(num_columns, WIDTH))
        self.tasks = nn.Parameter(torch.randn(num_tasks, WIDTH) * 0.01)
        self.columns = Layer(WIDTH)
        self.rows = Layer((num_tasks + num_columns) * WIDTH)
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(WIDTH, HEAD_WIDTH), nn.ReLU(), nn.Linear(HEAD_WIDTH, 1)) for _ in range(num_tasks)
        )
        size = num_tasks + num_columns
        blocked = torch.zeros(size, size, dtype=torch.bool)
        blocked[:num_tasks, :num_tasks] = ~torch.eye(num_tasks, dtype=torch.bool)
        self.blocked: Tensor
        self.register_buffer("blocked", blocked)

    def forward(self, numbers: Tensor) -> Tensor:
        """Maps (B, S) to (T, B)."""
        tokens = numbers.unsqueeze(-1) * self.weight + self.bias
        tokens = torch.cat([self.tasks.expand(len(numbers), -1, -1), tokens], dim=1)
        tokens = self.columns(tokens, self.blocked)
        flat = tokens.flatten(1)
        flat = self.rows(flat.unsqueeze(0))[0] if self.between == "rows" else self.rows(flat.unsqueeze(1))[:, 0]
        tokens = flat.view_as(tokens)
        return torch.stack([head(tokens[:, task])[:, 0] for task, head in enumerate(self.heads)])


def ours(num_columns: int, num_tasks: int, *, num_blocks: int, hidden: int) -> MultiTaskModel:
    """The same width in motet."""
    edges = torch.linspace(-2, 2, 49).expand(num_columns, -1).contiguous()
    sharing = MultiTabNet(num_tasks, width=WIDTH, num_blocks=num_blocks, num_heads=HEADS, hidden=hidden)
    tasks = [Regression(f"t{number}", center=0.0, scale=1.0) for number in range(num_tasks)]
    return MultiTaskModel(TokenEncoder(edges, (), width=WIDTH), sharing, tasks, head_width=HEAD_WIDTH)


def contenders(num_columns: int, num_tasks: int) -> dict[str, nn.Module]:
    """By name, all with the same random numbers behind them."""
    torch.manual_seed(0)
    found: dict[str, nn.Module] = {
        f"published, {between}": Reference(num_columns, num_tasks, between=between) for between in ("rows", "single")
    }
    for num_blocks, hidden in ((1, HIDDEN), (2, HIDDEN), (2, 4 * WIDTH)):  # the last has motet's own proportions
        name = f"motet, {num_blocks} block{'s' * (num_blocks > 1)}, hidden {hidden}"
        found[name] = ours(num_columns, num_tasks, num_blocks=num_blocks, hidden=hidden)
    return found


def step(model: nn.Module, batch: int, num_columns: int, num_tasks: int) -> Callable[[], None]:
    """One training step: forward, sum of the tasks' squared errors, backward, AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-5, fused=True)
    numbers, targets = torch.randn(batch, num_columns), torch.randn(num_tasks, batch)
    categories = torch.zeros(batch, 0, dtype=torch.int64)

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        if isinstance(model, MultiTaskModel):
            outputs = torch.cat([*model({"numbers": numbers, "categories": categories}).values()], dim=1).T
        else:
            outputs = model(numbers)
        functional.mse_loss(outputs, targets).backward()
        optimizer.step()

    return run


def measure(num_columns: int, num_tasks: int, batch: int, repeats: int) -> dict[str, dict[str, float]]:
    """Rows a second and parameters of each contender; the repeats go round, so that a slow moment hits them all."""
    models = contenders(num_columns, num_tasks)
    runs = {name: step(model, batch, num_columns, num_tasks) for name, model in models.items()}
    least = dict.fromkeys(runs, float("inf"))
    for _ in range(repeats + 1):  # the first is a warm-up, and the least is taken
        for name, run in runs.items():
            begun = time.process_time()
            run()
            least[name] = min(least[name], time.process_time() - begun)
    slow = least["published, rows"], least["published, single"]
    return {
        name: {
            "rows_per_second": round(batch / seconds), "parameters": sum(p.numel() for p in models[name].parameters()),
            "times_published_rows": round(slow[0] / seconds, 2), "times_published_single": round(slow[1] / seconds, 2),
        }
        for name, seconds in least.items()
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    plan = [(name, *shape, 2048) for name, *shape in SHAPES]
    plan += [("by columns", columns, 4, 512) for columns in COLUMNS]
    plan += [("by tasks", 16, tasks, 512) for tasks in TASKS]
    cells = []
    for what, num_columns, num_tasks, batch in plan:
        found = measure(num_columns, num_tasks, batch, options.repeats)
        cells.append({"what": what, "columns": num_columns, "tasks": num_tasks, "batch": batch, "contenders": found})
        print(what, num_columns, num_tasks, {name: cell["rows_per_second"] for name, cell in found.items()}, flush=True)
    result = {
        "command": " ".join(["python", "benchmarks/multitab.py", *sys.argv[1:]]), "torch": torch.__version__,
        "threads": 1, "width": WIDTH, "heads": HEADS, "hidden": HIDDEN,
        "machine": {"system": platform.system(), "processor": platform.machine(), "python": platform.python_version()},
        "cells": cells,
    }  # fmt: skip
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({"cells": len(cells)}))


if __name__ == "__main__":
    main()
