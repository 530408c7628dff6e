"""Eight real experts merged: what each learned method gains over the one that its paper improves on.

    python benchmarks/merge_experts.py --data DIR --out benchmarks/results/merge_experts.json

A small vision transformer is trained on a pool of upright digits and garments, and tuned for eight tasks of five
classes: digits 0-4 and 5-9 of MNIST, garments 0-4 and 5-9 of Fashion-MNIST, each upright and turned by a quarter.
Every task has a linear head, fitted on the base's features and then frozen; trunks are merged. Learned methods get
`--adapt-rows` further training rows a task, without labels but for aTLAS and the tuned scales, and the same number of
steps; scores are the share of right answers on test images. Experts and finished cells lie in `--cache` under a hash of
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
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

import motet.merge
from motet.bench._images import DIGITS, GARMENTS, _read
from motet.merge import DOGE, TIES, Average, Method, TaskArithmetic, compare_with_experts, merge
from motet.merge.learned import (
    Routing,
    adamerging,
    atlas,
    concrete_adamerging,
    concrete_task_arithmetic,
    entropy,
    wemoe,
)

WIDTH, BLOCKS, HEADS, PATCH, CLASSES, BATCH = 64, 4, 4, 7, 5, 16
POOL = 10_000  # the first training images of each set; the tasks' rows come from the others
SCALES = tuple(round(0.1 * number, 1) for number in range(1, 11))
State = dict[str, Tensor]
Trunk = Callable[[Tensor], Tensor]
# A method, and the one that its paper improves on.
CLAIMS = (
    ("doge", "task arithmetic"), ("adamerging by task", "task arithmetic"), ("adamerging", "task arithmetic"),
    ("adamerging", "ties"), ("adamerging with ties", "ties"), ("concrete task arithmetic", "task arithmetic"),
    ("concrete adamerging", "adamerging"), ("atlas", "task arithmetic"), ("atlas", "task arithmetic, tuned"),
    ("wemoe", "adamerging"),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much of everything."""

    pretrain_steps: int = 300
    tune_rows: int = 3000
    tune_steps: int = 300
    adapt_rows: int = 512
    test_rows: int = 1000
    steps: int = 500


@dataclass(frozen=True)
class Part:
    """A task: five classes of one set of images, upright or turned."""

    name: str
    source: str
    low: int
    turns: int


PARTS = tuple(
    Part(f"{source} {low}-{low + 4}{' turned' if turns else ''}", source, low, turns)
    for source in ("digits", "garments")
    for turns in (0, 1)
    for low in (0, 5)
)


class Block(nn.Module):
    """Attention and an MLP, each around a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attend, self.project = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, S, F) to the same."""
        parts = self.attend(self.first(tokens)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(*parts.unbind(0)).transpose(1, 2).flatten(2)
        tokens = tokens + self.project(mixed)
        return tokens + self.mlp(self.second(tokens))


class VisionTransformer(nn.Module):
    """Images (B, 28, 28) to features (B, WIDTH)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, WIDTH, PATCH, PATCH)
        self.places = nn.Parameter(0.02 * torch.randn((28 // PATCH) ** 2, WIDTH))
        self.blocks = nn.Sequential(*(Block() for _ in range(BLOCKS)))
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, images: Tensor) -> Tensor:
        """The mean of the tokens."""
        tokens = self.embed(images.unsqueeze(1)).flatten(2).transpose(1, 2) + self.places
        return self.norm(self.blocks(tokens)).mean(dim=1)


class Images:
    """Both sets, read once."""

    def __init__(self, data: Path) -> None:
        self._found = {
            (source.name, part): _read(source, part, data)
            for source in (DIGITS, GARMENTS)
            for part in ("train", "t10k")
        }

    def rows(self, part: Part, which: str, count: int, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Some of a task's images and their classes from 0 on; of the training images those behind the pool."""
        images, labels = self._found[{"digits": "mnist", "garments": "fashion"}[part.source], which]
        fitting = (labels >= part.low) & (labels < part.low + CLASSES)
        fitting[: POOL if which == "train" else 0] = False
        chosen = generator.permutation(np.flatnonzero(fitting))[:count]
        return prepared(np.rot90(images[chosen], part.turns, (1, 2))), torch.from_numpy(labels[chosen] - part.low)

    def pool(self, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
        """A batch of the pool: as many digits as garments, upright, in twenty classes."""
        found = []
        for offset, name in ((0, "mnist"), (10, "fashion")):
            images, labels = self._found[name, "train"]
            chosen = generator.integers(0, POOL, 4 * BATCH)
            found.append((prepared(images[chosen]), torch.from_numpy(labels[chosen] + offset)))
        return torch.cat([one for one, _ in found]), torch.cat([one for _, one in found])


def prepared(images: np.ndarray) -> Tensor:
    """Bytes to numbers around zero."""
    return (torch.from_numpy(np.ascontiguousarray(images)).float() / 255 - 0.3) / 0.35


@dataclass(frozen=True)
class Case:
    """What one seed merges, and on which rows it learns and is scored."""

    base: State
    experts: list[State]
    heads: list[nn.Linear]
    adapt: list[tuple[Tensor, Tensor]]
    test: list[tuple[Tensor, Tensor]]
    steps: int
    seed: int

    def unlabelled(self) -> list[list[Tensor]]:
        """Steps' worth of inputs."""
        return [[images for images, _ in batch] for batch in self.labelled()]

    def labelled(self) -> list[list[tuple[Tensor, Tensor]]]:
        """Steps' worth of inputs with classes."""
        split = [list(zip(*(part.split(BATCH) for part in rows), strict=True)) for rows in self.adapt]
        return [list(batch) for batch in zip(*split, strict=True)]

    def unsure(self, call: Trunk, expert: int, batch: Tensor) -> Tensor:
        """The mean entropy under the task's head."""
        return entropy(lambda images: self.heads[expert](call(images)), expert, batch)

    def wrong(self, call: Trunk, expert: int, batch: tuple[Tensor, Tensor]) -> Tensor:
        """The cross entropy under the task's head."""
        return functional.cross_entropy(self.heads[expert](call(batch[0])), batch[1])

    def right(self, trunks: list[Trunk], rows: list[tuple[Tensor, Tensor]]) -> dict[str, np.ndarray]:
        """1 where the answer is right, by task, each with its trunk."""
        with torch.no_grad():
            return {
                part.name: (head(trunk(images)).argmax(1) == classes).numpy().astype(np.int8)
                for part, head, trunk, (images, classes) in zip(PARTS, self.heads, trunks, rows, strict=True)
            }


def at(state: State) -> Trunk:
    """The transformer at some weights."""
    model = VisionTransformer().eval()
    model.load_state_dict(state)
    return model


def train(parameters: Any, loss: Callable[[], Tensor], steps: int, rate: float) -> None:
    """AdamW, at a rate that falls to zero."""
    optimizer = torch.optim.AdamW(parameters, rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        schedule.step()


def pretrained(images: Images, size: Size, seed: int) -> State:
    """The base, from the pool."""
    torch.manual_seed(seed)
    model, head = VisionTransformer(), nn.Linear(WIDTH, 20)
    generator = np.random.default_rng([seed, 1])

    def loss() -> Tensor:
        rows, classes = images.pool(generator)
        return functional.cross_entropy(head(model(rows)), classes)

    train([*model.parameters(), *head.parameters()], loss, size.pretrain_steps, 1e-3)
    return model.state_dict()


def tuned(base: State, rows: tuple[Tensor, Tensor], size: Size, seed: int) -> State:
    """An expert: its head under `head.`, fitted first on the base's features, then its trunk."""
    torch.manual_seed(seed)
    model, head = VisionTransformer(), nn.Linear(WIDTH, CLASSES)
    model.load_state_dict(base)
    with torch.no_grad():
        features = model(rows[0])
    train(head.parameters(), lambda: functional.cross_entropy(head(features), rows[1]), 100, 0.02)
    draw = torch.Generator().manual_seed(seed)

    def loss() -> Tensor:
        chosen = torch.randint(len(rows[0]), (4 * BATCH,), generator=draw)
        return functional.cross_entropy(head(model(rows[0][chosen])), rows[1][chosen])

    train(model.parameters(), loss, size.tune_steps, 5e-4)
    return model.state_dict() | {f"head.{name}": part.detach() for name, part in head.state_dict().items()}


MAKERS = (Block, VisionTransformer, Images, prepared, train, pretrained, tuned)


def kept(cache: Path, key: object, make: Callable[[], State]) -> State:
    """Weights under the hash of what makes them."""
    text = json.dumps([key, *map(inspect.getsource, MAKERS)], sort_keys=True)
    path = cache / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.safetensors"
    if not path.exists():
        started = time.process_time()
        state = {name: part.detach().contiguous() for name, part in make().items()}
        save_file(state, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)
        print(f"{key}: {time.process_time() - started:.1f} CPU seconds", file=sys.stderr, flush=True)
    return load_file(path)


def made(images: Images, size: Size, seed: int, cache: Path) -> Case:
    """The base, the experts and the rows of one seed."""
    sizes = {
        name: value for name, value in asdict(size).items() if name in {"pretrain_steps", "tune_rows", "tune_steps"}
    }
    base = kept(cache, ["base", seed, sizes], lambda: pretrained(images, size, seed))
    experts, heads, adapt, test = [], [], [], []
    for number, part in enumerate(PARTS):
        generator = np.random.default_rng([seed, 2, number])
        rows, classes = images.rows(part, "train", size.tune_rows + size.adapt_rows, generator)
        own = (rows[: size.tune_rows], classes[: size.tune_rows])
        expert = kept(
            cache, [part.name, seed, sizes], lambda own=own, number=number: tuned(base, own, size, seed + number)
        )
        head = nn.Linear(WIDTH, CLASSES).requires_grad_(requires_grad=False)
        head.load_state_dict({name: expert.pop(f"head.{name}") for name in ("weight", "bias")})
        experts.append(expert)
        heads.append(head)
        adapt.append((rows[size.tune_rows :], classes[size.tune_rows :]))
        test.append(images.rows(part, "t10k", size.test_rows, np.random.default_rng([number])))
    return Case(base, experts, heads, adapt, test, size.steps, seed)


def chosen_by_labels(case: Case, make: Callable[[float], Method]) -> State:
    """The merge whose scale is best on the adaptation rows, with their labels."""
    states = [merge(case.base, case.experts, method=make(scale)) for scale in SCALES]
    scores = [np.mean([row.mean() for row in case.right([at(one)] * 8, case.adapt).values()]) for one in states]
    return states[int(np.argmax(scores))]


def methods(case: Case) -> dict[str, Callable[[], Any]]:
    """What makes each contender: the weights, or a module in the place of the trunk."""
    model, steps = VisionTransformer().eval(), case.steps

    def plain(method: Method) -> Callable[[], State]:
        return lambda: merge(case.base, case.experts, method=method)

    def learned(method: Callable[..., Any], **options: Any) -> Callable[[], Any]:
        def call() -> Any:
            rows = case.labelled() if method is atlas else case.unlabelled()
            loss = case.wrong if method is atlas else case.unsure
            return method(model, case.base, case.experts, rows, loss=loss, **options)

        return call

    return {
        "base": lambda: case.base,
        "average": plain(Average()),
        "task arithmetic": plain(TaskArithmetic()),
        "task arithmetic, tuned": lambda: chosen_by_labels(case, lambda scale: TaskArithmetic(scale=scale)),
        "ties": plain(TIES()),
        "ties, tuned": lambda: chosen_by_labels(case, lambda scale: TIES(scale=scale)),
        "doge": plain(DOGE()),
        "adamerging by task": learned(adamerging, by="task", steps=steps),
        "adamerging": learned(adamerging, steps=steps),
        "adamerging with ties": learned(adamerging, density=0.2, steps=steps),
        "concrete task arithmetic": learned(concrete_task_arithmetic, steps=steps, seed=case.seed),
        "concrete adamerging": learned(concrete_adamerging, mask_steps=steps, steps=steps, seed=case.seed),
        "atlas": learned(atlas, steps=steps),
        "atlas of 8 blocks": learned(atlas, steps=steps, blocks=8),
        "wemoe": learned(wemoe, steps=steps, routing=Routing(modules=["blocks.*.mlp"], by="batch", seed=case.seed)),
    }


def cells(case: Case, wanted: set[str], folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The scores of every contender, from the cache where they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    makers = methods(case)
    for name in ("experts", *makers):
        path = folder / f"{case.seed}-{name.replace(' ', '_').replace(',', '')}.json"
        if wanted and name not in wanted:
            continue
        if not path.exists():
            started = time.process_time()
            found = [at(one) for one in case.experts] if name == "experts" else [trunk(makers[name]())] * len(PARTS)
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


def code_of(size: Size) -> str:
    """A name for what makes a cell: the merging code, what calls it, and the sizes."""
    files = sorted(Path(motet.merge.__file__).parent.rglob("*.py"))
    parts = [path.read_text(encoding="utf-8") for path in files]
    parts += map(inspect.getsource, (*MAKERS, Case, chosen_by_labels, methods, made))
    return hashlib.sha256("".join([*parts, json.dumps(asdict(size))]).encode()).hexdigest()[:12]


def trunk(found: Any) -> Trunk:
    """What a method made, as a function."""
    return found.eval() if isinstance(found, nn.Module) else at(found)


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
    contenders = {}
    for name in names:
        mine = [one[name] for one in found.values() if name in one]
        contenders[name] = {
            "accuracy": round(float(np.mean([accuracy(cell) for cell in mine])), 4),
            "by_seed": [round(accuracy(cell), 4) for cell in mine],
            "by_task": {
                part.name: round(float(np.mean([c["right"][part.name].mean() for c in mine])), 4) for part in PARTS
            },
            "cpu_seconds": [cell["cpu_seconds"] for cell in mine],
        }
    claims = [one for method, rival in CLAIMS if (one := compared(found, method, rival)) is not None]
    return {"contenders": contenders, "claims": claims}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds mnist and fashion")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--methods", default="", help="only these, with commas between; ';' where a name has a comma")
    parser.add_argument("--cache", type=Path, default=Path("benchmarks/.cache/merge_experts"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    for name, value in asdict(Size()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    size = Size(**{name: getattr(options, name) for name in asdict(Size())})
    wanted = set(filter(None, options.methods.split(";" if ";" in options.methods else ",")))
    options.cache.mkdir(parents=True, exist_ok=True)
    folder = options.cache / code_of(size)
    images, load = Images(options.data), os.getloadavg()[0]
    found = {
        seed: dict(cells(made(images, size, seed, options.cache), wanted, folder))
        for seed in map(int, options.seeds.split(","))
    }
    document = {
        "command": " ".join(["python", "benchmarks/merge_experts.py", *sys.argv[1:]]),
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
        ).stdout.strip(),
        "size": asdict(size),
        "versions": {name: importlib.metadata.version(name) for name in ("motet", "torch", "numpy")},
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()},
        "load_average": [load, os.getloadavg()[0]],
        "seeds": list(found),
    } | summary(found)
    if options.out:
        options.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(document))


if __name__ == "__main__":
    main()
