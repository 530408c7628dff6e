"""A step of learned merging beside the same equations task by task, and beside FusionBench: CPU time and gradients.

    python benchmarks/merge_step.py --peers DIR --out benchmarks/results/merge_step.json

Two cases, each with 8 experts, 8 tasks, batches of 16 and some 10.5 million numbers in float32. `adamerging`: ten
square layers; a step is the gradient of Σ mean entropy to one coefficient a tensor and expert. `wemoe`: nine routed
MLPs of a transformer's shape over 4 tokens; a step is the gradient to the routers. Contenders take turns in one
process; CPU seconds of the process, without the optimiser's step, which is the same for all. FusionBench is measured
where DIR holds it (`pip install --no-deps --target DIR fusion-bench` and what it imports).
"""

import argparse
import copy
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from motet.merge.learned import LayerWise, Merged, RoutedMerge, Routing, entropy
from motet.merge.learned._descend import backward

EXPERTS, BATCH, START = 8, 16, 0.3
WIDTH, DEPTH = 1024, 10
TOKENS, MODEL_WIDTH, BLOCKS = 4, 384, 9
# Takes one step's gradients; gives them flat.
Step = Callable[[], Tensor]


def states(model: nn.Module) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
    """A base, and experts that have moved by a twentieth of its spread."""
    generator = torch.Generator().manual_seed(1)
    base = {name: part.detach().clone() for name, part in model.state_dict().items()}

    def moved(part: Tensor) -> Tensor:
        return part + 0.05 * part.std() * torch.randn(part.shape, generator=generator)

    return base, [{name: moved(part) for name, part in base.items()} for _ in range(EXPERTS)]


def models_of(model: nn.Module, experts: list[dict[str, Tensor]]) -> list[nn.Module]:
    """The experts as modules."""
    found = [copy.deepcopy(model) for _ in experts]
    for one, state in zip(found, experts, strict=True):
        one.load_state_dict(state)
    return found


def adamerging(*, peers: bool) -> dict[str, Step]:
    """The contenders of a layer-wise AdaMerging step."""
    torch.manual_seed(0)
    layers = [layer for _ in range(DEPTH) for layer in (nn.Linear(WIDTH, WIDTH), nn.ReLU())]
    model = nn.Sequential(*layers[:-1])
    base, experts = states(model)
    batches = [torch.randn(BATCH, WIDTH) for _ in range(EXPERTS)]
    changes = [{name: expert[name] - base[name] for name in base} for expert in experts]
    merged = Merged(model, base, experts, coefficients=LayerWise(len(base), EXPERTS, start=START))

    def ours() -> Tensor:
        merged.zero_grad()
        backward(merged, merged.weights(), batches, entropy)
        return gradients(merged)

    def by_task() -> Tensor:
        """The same equations with a merge for each task, in plain torch."""
        values = torch.full((len(base), EXPERTS), START, requires_grad=True)
        for batch in batches:
            weights = {
                name: base[name] + sum(values[row, e] * change[name] for e, change in enumerate(changes))
                for row, name in enumerate(base)
            }
            entropy(
                lambda rows, weights=weights: torch.func.functional_call(model, weights, (rows,)), 0, batch
            ).backward()
        assert values.grad is not None
        return values.grad.flatten()

    found: dict[str, Step] = {"motet": ours, "a merge for each task": by_task}
    if peers:
        from fusion_bench.models.wrappers.layer_wise_fusion import LayerWiseMergedModel

        start = torch.full((EXPERTS, len(base)), START)
        peer = LayerWiseMergedModel(start, copy.deepcopy(model), models_of(model, experts), clamp_weights=False)
        found["fusionbench"] = lambda: peer_step(peer, batches, lambda: peer.merge_weight.grad.T.flatten())
    return found


def peer_step(peer: Any, batches: list[Tensor], found: Callable[[], Tensor]) -> Tensor:
    """As FusionBench's loop: one merge, and a backward through it for each task."""
    peer.zero_grad()
    if hasattr(peer, "merge_weights"):
        peer.merge_weights()
    for batch in batches:
        peer_entropy(peer(batch)).backward(retain_graph=True)
    return found().clone()


def peer_entropy(logits: Tensor) -> Tensor:
    """The peer's loss: it adds 1e-8 within the logarithm."""
    shares = torch.softmax(logits, dim=-1)
    return -(shares * torch.log(shares + 1e-8)).sum(dim=-1).mean()


class Block(nn.Module):
    """A residual MLP over tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(MODEL_WIDTH, 4 * MODEL_WIDTH), nn.GELU(), nn.Linear(4 * MODEL_WIDTH, MODEL_WIDTH)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """The tokens with what the MLP adds."""
        return tokens + self.mlp(tokens)


def wemoe(by: str, *, peers: bool) -> dict[str, Step]:
    """The contenders of a step of routed task vectors."""
    torch.manual_seed(0)
    model = nn.Sequential(*(Block() for _ in range(BLOCKS)))
    base, experts = states(model)
    batches = [torch.randn(BATCH, TOKENS, MODEL_WIDTH) for _ in range(EXPERTS)]
    routed = RoutedMerge(model, base, experts, Routing(modules=["*.mlp"], by=by, start=START))  # pyrefly: ignore

    def score(call: Callable[[Tensor], Tensor], expert: int, batch: Tensor) -> Tensor:
        return entropy(lambda rows: call(rows).mean(dim=1), expert, batch)

    def ours() -> Tensor:
        routed.zero_grad()
        backward(routed, {}, batches, score)
        return gradients(routed)

    found: dict[str, Step] = {f"motet by {by}": ours}
    if peers:
        from fusion_bench.models.we_moe import WeightEnsemblingMoE

        peer = copy.deepcopy(model)
        whole = models_of(model, experts)
        for number, block in enumerate(peer):
            mlps = [copy.deepcopy(one[number].mlp) for one in whole]
            block.mlp = WeightEnsemblingMoE(
                MODEL_WIDTH, block.mlp, mlps, init_lambda=START, batch_first=True, batch_reduce=by == "batch"
            )
            gate, router = block.mlp.gate, routed.model[number].mlp.router.layers
            gate.fc1.load_state_dict(router[0].state_dict())
            gate.fc2.load_state_dict(router[2].state_dict())
        means = nn.Sequential(peer, Mean())
        found[f"fusionbench by {by}"] = lambda: peer_step(means, batches, lambda: gradients(means))
    return found


class Mean(nn.Module):
    """The mean over tokens."""

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, F) of (B, S, F)."""
        return tokens.mean(dim=1)


def gradients(module: nn.Module) -> Tensor:
    """Of all that learns, flat."""
    return torch.cat([values.grad.flatten() for values in module.parameters() if values.grad is not None])


def race(steps: dict[str, Step], rounds: int) -> dict[str, object]:
    """Milliseconds of each contender, in turn, and how far its gradients lie from the first one's."""
    wanted = {name: step() for name, step in steps.items()}
    first = next(iter(wanted.values()))
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            started = time.process_time()
            step()
            times[name].append(1e3 * (time.process_time() - started))
    ours = statistics.median(next(iter(times.values())))
    return {
        name: {
            "cpu_ms": round(statistics.median(found), 1),
            "cpu_ms_range": [round(min(found), 1), round(max(found), 1)],
            "ratio": round(statistics.median(found) / ours, 2),
            "gradient_difference": float((wanted[name] - first).abs().max() / first.abs().max()),
        }
        for name, found in times.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="folder that holds fusion_bench")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="cases whose name holds this, such as 'wemoe'")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.peers:
        sys.path.append(str(options.peers))
    peers = options.peers is not None
    cases = {
        "adamerging": lambda: adamerging(peers=peers),
        "wemoe by batch": lambda: wemoe("batch", peers=peers),
        "wemoe by row": lambda: wemoe("row", peers=peers),
    }
    document: dict[str, object] = {
        "command": " ".join(["python", "benchmarks/merge_step.py", *sys.argv[1:]]),
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
        ).stdout.strip(),
        "experts": EXPERTS,
        "batch": BATCH,
        "versions": {
            name: importlib.metadata.version(name) for name in ("torch", *(["fusion_bench"] if peers else []))
        },
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()},
        "load_average": os.getloadavg()[0],
    }
    for name, make in cases.items():
        if options.only in name:
            document[name] = race(make(), options.rounds)
            print(f"{name}: {document[name]}", file=sys.stderr, flush=True)
    if options.out:
        options.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(document))


if __name__ == "__main__":
    main()
