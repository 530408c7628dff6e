"""One training for many budgets: each width of ECMT beside a network trained at that width alone.

    python benchmarks/widths.py --seeds 0 1 --out benchmarks/results/widths.json

Two problems: `teacher`, three numbers that random networks of common and own parts make of 16 inputs, fresh rows each
step, so that every channel counts; and `digits`, 1,797 scans that scikit-learn brings: which digit, whether it is even,
whether it is five or more. Both networks see the same rows in the same number of steps; a score is the mean over tasks
of R² or accuracy, on rows that neither saw.
"""

import argparse
import json
import platform
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from motet.models import MultiTaskModel, measure_widths
from motet.models.sharing import ECMT
from motet.tasks import Binary, Multiclass, Regression, Task

FRACTIONS = (0.2, 0.4, 0.6, 0.8, 1.0)
PREFERENCES = (0.1, 0.5, 1.0, 2.0, 10.0, 100.0)
Rows = tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]


@dataclass(frozen=True)
class Problem:
    """Tasks, a batch for each step, and the rows to choose widths by and to score on."""

    inputs: int
    tasks: Sequence[Task]
    batches: Callable[[], Iterator[Rows]]
    steps: int
    choose: Rows
    score: Rows


def rows_of(inputs: Tensor, targets: dict[str, Tensor]) -> Rows:
    return inputs, targets, {name: torch.ones(len(inputs), dtype=torch.bool) for name in targets}


def digits(seed: int) -> Problem:
    found = load_digits()
    order = torch.randperm(len(found.target), generator=torch.Generator().manual_seed(seed))
    pixels = torch.from_numpy(found.data).float()[order] / 8.0 - 1.0
    digit = torch.from_numpy(found.target)[order]
    targets = {"digit": digit, "even": (digit % 2 == 0).float(), "large": (digit >= 5).float()}

    def some(chosen: Tensor) -> Rows:
        return rows_of(pixels[chosen], {name: values[chosen] for name, values in targets.items()})

    def batches() -> Iterator[Rows]:
        generator = torch.Generator().manual_seed(seed)
        for _ in range(30):
            for chosen in torch.randperm(1000, generator=generator).split(100):
                yield some(chosen)

    tasks = (
        Multiclass("digit", classes=tuple(range(10))), Binary("even", classes=(False, True)),
        Binary("large", classes=(False, True)),
    )  # fmt: skip
    return Problem(64, tasks, batches, 300, some(torch.arange(1000, 1350)), some(torch.arange(1350, len(digit))))


def teacher(seed: int) -> Problem:
    draw = torch.Generator().manual_seed(seed)
    first, second = torch.randn(16, 16, generator=draw) / 4.0, torch.randn(3, 16, 64, generator=draw) / 2.0
    last = torch.randn(3, 64, generator=draw) / 8.0

    def make(count: int, generator: torch.Generator) -> Rows:
        inputs = torch.randn(count, 16, generator=generator)
        own = torch.einsum("bh,thm->tbm", torch.tanh(2.0 * inputs @ first), second).relu()
        numbers = torch.einsum("tbm,tm->tb", own, last)
        return rows_of(inputs, dict(zip("abc", numbers, strict=True)))

    def batches() -> Iterator[Rows]:
        generator = torch.Generator().manual_seed(seed + 1)
        for _ in range(600):
            yield make(128, generator)

    draws = [torch.Generator().manual_seed(seed + number) for number in (2, 3)]
    tasks = [Regression(name, center=0.0, scale=1.0) for name in "abc"]
    return Problem(16, tasks, batches, 600, make(4000, draws[0]), make(4000, draws[1]))


def build(problem: Problem, seed: int) -> MultiTaskModel:
    torch.manual_seed(seed)
    sharing = ECMT(len(problem.tasks), width=64, fractions=FRACTIONS, seed=seed)
    return MultiTaskModel(nn.Linear(problem.inputs, 64), sharing, problem.tasks, head_width=32)


def train(model: MultiTaskModel, problem: Problem) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=problem.steps)
    model.train()
    for inputs, targets, present in problem.batches():
        optimizer.zero_grad()
        sum(model.losses(model(inputs), targets, present).values()).backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def score(model: MultiTaskModel, rows: Rows) -> float:
    """The tasks' mean R², or accuracy."""
    inputs, targets, _ = rows
    found = []
    for name, outputs in model.eval()(inputs).items():
        truth = targets[name]
        if model.tasks[name].kind == "regression":
            found.append(float(1.0 - (outputs[:, 0] - truth).square().mean() / truth.var()))
        else:
            said = outputs.argmax(dim=1) if outputs.shape[1] > 1 else outputs[:, 0] > 0
            found.append(float((said == truth).float().mean()))
    return statistics.mean(found)


def one_seed(problem: Problem, seed: int) -> dict[str, object]:
    model = build(problem, seed)
    train(model, problem)
    measure_widths(model, [problem.choose])
    cells = []
    for number, fraction in enumerate(FRACTIONS):
        widths = [number] * (1 + len(problem.tasks))
        model.sharing.active = widths
        alone = build(problem, seed)
        alone.sharing.active = widths  # trains this width and no other
        train(alone, problem)
        costs = model.sharing.costs
        scores = {"one_training": score(model, problem.score), "alone": score(alone, problem.score)}
        cells.append({"fraction": fraction, "cost": round(costs.of(widths) / costs.range[1], 3)})
        cells[-1] |= {name: round(value, 4) for name, value in scores.items()}
        print(cells[-1], flush=True)
    curve = []
    for count in PREFERENCES:
        chosen = model.configure(budget=0.5, preference={problem.tasks[0].name: count})
        at = model.sharing.active
        harm = [round(float(model.sharing.harm[at[0], own, task]), 4) for task, own in enumerate(at[1:])]
        curve.append({"preference": count, "widths": [chosen.shared, *chosen.tasks.values()], "harm": harm})
        print(curve[-1], flush=True)
    return {"seed": seed, "widths": cells, "preference_for_the_first_task": curve}


def gap(runs: list[dict[str, list[dict[str, float]]]], place: int) -> float:
    """By how many percent of its score a network trained alone is better, mean over seeds."""
    cells = [run["widths"][place] for run in runs]
    return round(statistics.mean(100.0 * (1.0 - cell["one_training"] / cell["alone"]) for cell in cells), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--problems", nargs="+", default=["teacher", "digits"])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    known = {"teacher": teacher, "digits": digits}
    runs = {name: [one_seed(known[name](seed), seed) for seed in options.seeds] for name in options.problems}
    gaps = {name: [gap(found, place) for place in range(len(FRACTIONS))] for name, found in runs.items()}
    result = {
        "command": " ".join(["python", "benchmarks/widths.py", *sys.argv[1:]]), "torch": torch.__version__,
        "machine": {"system": platform.system(), "processor": platform.machine(), "python": platform.python_version()},
        "fractions": FRACTIONS, "mean_gap_percent": gaps, "runs": runs,
    }  # fmt: skip
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({"fractions": FRACTIONS, "mean_gap_percent": gaps}))


if __name__ == "__main__":
    main()
