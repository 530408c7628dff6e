"""A base, its experts, and the rows on which merges learn and are scored."""

import hashlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from motet.merge.learned import entropy

BATCH, TUNE_BATCH = 16, 64
State: TypeAlias = dict[str, Tensor]
Rows: TypeAlias = tuple[Tensor, Tensor]
Trunk: TypeAlias = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much of everything."""

    pretrain_steps: int = 800
    tune_rows: int = 3000
    tune_steps: int = 300
    adapt_rows: int = 1024
    test_rows: int = 1000
    steps: int = 500


class Problem(Protocol):
    """Tasks for one base."""

    tasks: Sequence[str]
    classes: Sequence[int]
    width: int
    routed: str
    rate: float
    trunk: Callable[[], nn.Module]

    def base(self, size: Size, seed: int) -> State:
        """The weights that all experts begin with."""
        ...

    def rows(self, task: int, which: str, count: int, generator: np.random.Generator) -> Rows:
        """Rows of a task, of 'train' or 'test'."""
        ...

    def changed(self, inputs: Tensor, generator: torch.Generator) -> Tensor:
        """Other views of inputs."""
        ...


@dataclass(frozen=True)
class Case:
    """What one seed merges, and on which rows it learns and is scored."""

    problem: Problem
    base: State
    experts: list[State]
    heads: list[nn.Linear]
    adapt: list[Rows]
    test: list[Rows]
    steps: int
    seed: int

    def batches(self) -> list[list[Rows]]:
        """Steps' worth of a batch for each task."""
        split = [list(zip(*(part.split(BATCH) for part in rows), strict=True)) for rows in self.adapt]
        return [list(batch) for batch in zip(*split, strict=True)]

    def together(self) -> list[list[Any]]:
        """The same for merges that have one set of weights: all tasks' rows take the first place and one pass."""
        return [[batch] + [None] * (len(self.experts) - 1) for batch in self.batches()]

    def unsure(self, call: Trunk, _: int, batch: list[Rows]) -> Tensor:
        """The tasks' mean entropies, added up."""
        logits = self._logits(call, [inputs for inputs, _ in batch])
        return torch.stack([entropy(lambda one: one, 0, one) for one in logits]).sum()

    def wrong(self, call: Trunk, _: int, batch: list[Rows]) -> Tensor:
        """The tasks' cross entropies, added up."""
        logits = self._logits(call, [inputs for inputs, _ in batch])
        return torch.stack(
            [functional.cross_entropy(one, classes) for one, (_, classes) in zip(logits, batch, strict=True)]
        ).sum()

    def unsure_alone(self, call: Trunk, expert: int, batch: Rows) -> Tensor:
        """One task's mean entropy."""
        return entropy(lambda inputs: self.heads[expert](call(inputs)), expert, batch[0])

    def right(self, trunks: Sequence[Trunk], rows: list[Rows]) -> dict[str, np.ndarray]:
        """1 where the answer is right, by task, each with its trunk."""
        with torch.no_grad():
            return {
                task: (head(trunk(inputs)).argmax(1) == classes).numpy().astype(np.int8)
                for task, head, trunk, (inputs, classes) in zip(
                    self.problem.tasks, self.heads, trunks, rows, strict=True
                )
            }

    def at(self, state: State) -> Trunk:
        """The trunk at some weights."""
        model = self.problem.trunk().eval()
        model.load_state_dict(state)
        return model

    def _logits(self, call: Trunk, inputs: list[Tensor]) -> list[Tensor]:
        features = call(torch.cat(inputs)).split([len(one) for one in inputs])
        return [head(one) for head, one in zip(self.heads, features, strict=True)]


def train(parameters: Any, loss: Callable[[], Tensor], steps: int, rate: float) -> None:
    """AdamW, at a rate that falls to zero."""
    optimizer = torch.optim.AdamW(parameters, rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        schedule.step()


def tuned(problem: Problem, base: State, rows: Rows, task: int, size: Size, seed: int) -> State:
    """An expert: its head under `head.`, fitted first on the base's features, then its trunk."""
    torch.manual_seed(seed)
    model, head = problem.trunk(), nn.Linear(problem.width, problem.classes[task])
    model.load_state_dict(base)
    with torch.no_grad():
        features = model(rows[0])
    train(head.parameters(), lambda: functional.cross_entropy(head(features), rows[1]), 100, 0.02)
    draw = torch.Generator().manual_seed(seed)

    def loss() -> Tensor:
        chosen = torch.randint(len(rows[0]), (TUNE_BATCH,), generator=draw)
        return functional.cross_entropy(head(model(rows[0][chosen])), rows[1][chosen])

    train(model.parameters(), loss, size.tune_steps, problem.rate)
    return model.state_dict() | {f"head.{name}": part.detach() for name, part in head.state_dict().items()}


def kept(cache: Path, key: object, code: str, make: Callable[[], State]) -> State:
    """Weights under the hash of what makes them."""
    text = json.dumps([key, code], sort_keys=True)
    path = cache / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.safetensors"
    if not path.exists():
        started = time.process_time()
        state = {name: part.detach().contiguous() for name, part in make().items()}
        save_file(state, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)
        print(f"{key}: {time.process_time() - started:.1f} CPU seconds", file=sys.stderr, flush=True)
    return load_file(path)


def made(problem: Problem, size: Size, seed: int, cache: Path, code: str) -> Case:
    """The base, the experts and the rows of one seed, from the cache where they are there."""
    before = [seed, size.pretrain_steps]
    base = kept(cache, ["base", *before], code, lambda: problem.base(size, seed))
    experts, heads, adapt, test = [], [], [], []
    for task, name in enumerate(problem.tasks):
        draw = np.random.default_rng([seed, 2, task])
        inputs, classes = problem.rows(task, "train", size.tune_rows + size.adapt_rows, draw)
        if len(classes) < size.tune_rows + size.adapt_rows:
            message = f"'{name}' has {len(classes)} training rows; {size.tune_rows} to tune on and {size.adapt_rows} to"
            raise SystemExit(message + " adapt on were expected. Lower --tune-rows or --adapt-rows.")
        own = (inputs[: size.tune_rows], classes[: size.tune_rows])
        expert = kept(
            cache, [name, *before, size.tune_rows, size.tune_steps, problem.rate], code,
            lambda own=own, task=task: tuned(problem, base, own, task, size, seed + task),
        )  # fmt: skip
        head = nn.Linear(problem.width, problem.classes[task]).requires_grad_(requires_grad=False)
        head.load_state_dict({name: expert.pop(f"head.{name}") for name in ("weight", "bias")})
        experts.append(expert)
        heads.append(head)
        adapt.append((inputs[size.tune_rows :], classes[size.tune_rows :]))
        test.append(problem.rows(task, "test", size.test_rows, np.random.default_rng([task])))
    return Case(problem, base, experts, heads, adapt, test, size.steps, seed)
