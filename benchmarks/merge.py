"""Merging 8 experts of 109.5 million float32 numbers: time, memory and numbers, beside mergekit and FusionBench.

python benchmarks/merge.py --peers DIR --out benchmarks/results/merge_peers.json

The peers want other versions of common packages than motet does: install them, and what they import, with
`pip install --no-deps --target DIR`. Each contender is a process of its own, from its start to the written file;
without --peers motet runs alone.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

SCALE, DENSITY = 0.3, 0.2
ROUNDING = 3e-8  # two steps of float32 at numbers of the size of weights
FUSIONBENCH = """
import sys, torch
from safetensors.torch import load_file, save_file
kind, out, base, *experts = sys.argv[1:]

def module(path):
    root = torch.nn.Module()
    for name, tensor in load_file(path).items():
        place = root
        *parents, leaf = name.split(".")
        for parent in parents:
            if not hasattr(place, parent):
                place.add_module(parent, torch.nn.Module())
            place = getattr(place, parent)
        place.register_buffer(leaf, tensor)
    return root

if kind == "task_arithmetic":
    from fusion_bench.method.task_arithmetic.task_arithmetic import task_arithmetic_merge
    merged = task_arithmetic_merge(module(base), [module(path) for path in experts], SCALE).state_dict()
else:
    from fusion_bench.method.ties_merging.ties_merging_utils import (
        state_dict_to_vector, ties_merging, vector_to_state_dict,
    )
    with torch.no_grad():
        flat = torch.vstack([state_dict_to_vector(load_file(path)) for path in experts])
        start = load_file(base)
        vector = state_dict_to_vector(start)
        change = ties_merging(flat - vector, reset_thresh=DENSITY, merge_func="sum")
        merged = vector_to_state_dict(vector + SCALE * change, start)
save_file({name: tensor.detach().clone() for name, tensor in merged.items()}, out)
""".replace("SCALE", str(SCALE)).replace("DENSITY", str(DENSITY))


@dataclass(frozen=True)
class Cost:
    """What a process used."""

    cpu_seconds: float
    wall_seconds: float
    disk_seconds: float
    peak_anonymous_mb: float


def bert_base() -> dict[str, tuple[int, ...]]:
    """Names and shapes of BERT-base: 109,482,240 numbers."""
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (30522, 768),
        "embeddings.position_embeddings.weight": (512, 768),
        "embeddings.token_type_embeddings.weight": (2, 768),
    }

    def linear(name: str, width: int, height: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (height, width), (height,)

    def norm(name: str) -> None:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (768,)

    norm("embeddings.LayerNorm")
    for number in range(12):
        layer = f"encoder.layer.{number}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            linear(f"{layer}.attention.{part}", 768, 768)
        linear(f"{layer}.intermediate.dense", 768, 3072)
        linear(f"{layer}.output.dense", 3072, 768)
        norm(f"{layer}.attention.output.LayerNorm")
        norm(f"{layer}.output.LayerNorm")
    linear("pooler.dense", 768, 768)
    return shapes


def make(folder: Path, num_experts: int) -> list[Path]:
    """Seeded checkpoints: weights of spread 0.04, and experts that have moved by 0.002."""
    base = {
        name: 0.04 * np.random.default_rng(seed).standard_normal(shape, np.float32)
        for seed, (name, shape) in enumerate(bert_base().items())
    }
    paths = [folder / "base.safetensors"]
    save_file(base, paths[0])
    for expert in range(1, num_experts + 1):
        generators = {name: np.random.default_rng([expert, seed]) for seed, name in enumerate(base)}
        moved = {
            name: part + 0.002 * generators[name].standard_normal(part.shape, np.float32) for name, part in base.items()
        }
        paths.append(folder / f"expert{expert}.safetensors")
        save_file(moved, paths[-1])
    return paths


def measured(words: list[str], environment: dict[str, str], written: Path) -> Cost:
    """Runs a process to its end; what it wrote then has to reach the disk, which motet waits for itself."""
    started = time.monotonic()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(words, env=os.environ | environment, stdout=output, stderr=output)
        peak = 0
        while True:
            peak = max(peak, anonymous(process.pid))
            found, status, usage = os.wait4(process.pid, os.WNOHANG)
            if found:
                break
            time.sleep(0.005)
        if status:
            output.seek(0)
            message = f"exit status {os.waitstatus_to_exitcode(status)}: {output.read().decode()[-2000:]}"
            raise RuntimeError(message)
    cpu, wall = usage.ru_utime + usage.ru_stime, time.monotonic() - started
    return Cost(round(cpu, 2), round(wall, 2), round(to_disk(written), 2), round(peak / 1e6, 1))


def to_disk(written: Path) -> float:
    """Seconds until the disk has confirmed a file, or a folder's files."""
    started = time.monotonic()
    for file in written.rglob("*") if written.is_dir() else [written]:
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    return time.monotonic() - started


def anonymous(pid: int) -> int:
    """Bytes that a process holds beside mapped files."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")), 0)


def contenders(paths: list[Path], out: Path, peers: Path | None) -> dict[str, tuple[list[str], dict[str, str]]]:
    """The command and environment of each contender, by name and method."""
    files = [str(path) for path in paths]
    motet = [sys.executable, "-m", "motet", "merge", *files, "--scale", str(SCALE), "--method"]
    ties = [*motet, "ties", "--density", str(DENSITY), "--scope"]
    found = {
        "motet task_arithmetic": ([*motet, "task_arithmetic"], {}),
        "motet ties global": ([*ties, "global"], {}),
        "motet ties tensor": ([*ties, "tensor"], {}),
    }
    found = {name: ([*words, "-o", str(target(out, name))], extra) for name, (words, extra) in found.items()}
    if peers is not None:
        where = {"PYTHONPATH": str(peers)}
        for method in ("task_arithmetic", "ties"):
            name = f"fusionbench {method}"
            found[name] = ([sys.executable, "-c", FUSIONBENCH, method, str(target(out, name)), *files], where)
            config = out / f"{method}.yaml"
            config.write_text(json.dumps(mergekit(method, files)))
            call = [sys.executable, "-c", "from mergekit.scripts.merge_raw_pytorch import main; main()"]
            name = f"mergekit {method}"
            found[name] = ([*call, str(config), str(target(out, name))], where)
    return found


def target(out: Path, name: str) -> Path:
    """What a contender writes: mergekit a folder, the others a file."""
    return out / (name if name.startswith("mergekit") else f"{name}.safetensors")


def mergekit(method: str, files: list[str]) -> dict[str, object]:
    """A merge as mergekit is told it."""
    parameters = {"weight": SCALE} | ({"density": DENSITY} if method == "ties" else {})
    return {
        "merge_method": method, "base_model": files[0], "dtype": "float32", "parameters": {"normalize": False},
        "models": [{"model": file, "parameters": parameters} for file in files[1:]],
    }  # fmt: skip


def difference(one: Path, other: Path) -> dict[str, float]:
    """The largest difference of any number, the share of numbers that differ, and of those that rounding leaves."""
    largest, differing, beyond, total = 0.0, 0, 0, 0
    with safe_open(one, "np") as first, safe_open(other, "np") as second:
        for name in first.keys():  # noqa: SIM118
            mine, theirs = first.get_tensor(name), second.get_tensor(name)
            largest = max(largest, float(np.abs(mine - theirs).max()))
            differing += int(np.count_nonzero(mine != theirs))
            beyond += int(np.count_nonzero(np.abs(mine - theirs) > ROUNDING))
            total += mine.size
    return {"largest": largest, "share": differing / total, "share_beyond_rounding": beyond / total}


def versions(peers: Path | None) -> dict[str, str]:
    """Of what is measured."""
    found = {name: importlib.metadata.version(name) for name in ("motet", "numpy")}
    for peer in importlib.metadata.distributions(path=[str(peers)]) if peers else ():
        if peer.name in {"mergekit", "fusion_bench", "fusion-bench"}:
            found[peer.name] = peer.version
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experts", type=int, default=8)
    parser.add_argument("--peers", type=Path, help="folder that holds mergekit and fusion_bench")
    parser.add_argument("--repeats", type=int, default=3, help="of motet")
    parser.add_argument("--peer-repeats", type=int, default=1, help="of the peers")
    parser.add_argument(
        "--only", default="", help="contenders whose name holds this, such as 'ties'; commas between several"
    )
    parser.add_argument("--folder", type=Path, help="for some 7 GB of checkpoints; deleted afterwards")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    result: dict[str, object] = {
        "command": " ".join(["python", "benchmarks/merge.py", *sys.argv[1:]]),
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
        ).stdout.strip(),
        "numbers": sum(int(np.prod(shape)) for shape in bert_base().values()),
        "experts": options.experts,
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()},
        "versions": versions(options.peers),
        "load_average_before": os.getloadavg()[0],
    }
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        result |= run(Path(name), options)
    result["load_average_after"] = os.getloadavg()[0]
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))


def run(folder: Path, options: argparse.Namespace) -> dict[str, object]:
    """Costs by contender, and how far their numbers lie apart."""
    paths = make(folder, options.experts)
    out = folder / "merged"
    out.mkdir()
    costs: dict[str, list[dict[str, object]]] = {}
    parts = options.only.split(",")
    wanted = {
        name: call
        for name, call in contenders(paths, out, options.peers).items()
        if any(part in name for part in parts)
    }
    # In turn, so that a slow minute of the machine falls on all of them.
    for turn in range(max(options.repeats, options.peer_repeats)):
        for name, (words, environment) in wanted.items():
            is_ours = name.startswith("motet")
            if turn < (options.repeats if is_ours else options.peer_repeats):
                costs.setdefault(name, []).append(tried(words, environment, target(out, name), is_ours=is_ours))
                print(f"{name}: {costs[name][-1]}", file=sys.stderr, flush=True)
    same = {}
    for mine, other in (
        ("motet task_arithmetic", "fusionbench task_arithmetic"), ("motet task_arithmetic", "mergekit task_arithmetic"),
        ("motet ties global", "fusionbench ties"), ("motet ties tensor", "mergekit ties"),
    ):  # fmt: skip
        theirs = target(out, other)
        theirs = next(theirs.glob("*.safetensors"), theirs) if theirs.is_dir() else theirs
        if theirs.exists():
            same[f"{mine} against {other}"] = difference(out / f"{mine}.safetensors", theirs)
    shutil.rmtree(out)
    return {"costs": costs, "ratios": ratios(costs), "differences": same}


def tried(words: list[str], environment: dict[str, str], written: Path, *, is_ours: bool) -> dict[str, object]:
    """The costs of one run, or how it failed."""
    if written.is_dir():
        shutil.rmtree(written)
    written.unlink(missing_ok=True)
    try:
        return vars(measured(words, environment, written))
    except RuntimeError as error:  # a peer that runs out of memory is a result too
        if is_ours:
            raise
        return {"failed": str(error)}


def ratios(costs: dict[str, list[dict[str, object]]]) -> dict[str, float]:
    """By how much each of ours is ahead of the faster peer at the same method, by the medians."""

    def middle(name: str, what: str) -> float:
        return statistics.median(float(str(one[what])) for one in costs[name] if what in one)

    found = {}
    for mine in (name for name in costs if name.startswith("motet")):
        method = mine.split()[1]
        peers = [name for name in costs if name.split()[1] == method and not name.startswith("motet")]
        peers = [name for name in peers if any("failed" not in one for one in costs[name])]
        for what in ("cpu_seconds", "wall_seconds") if peers else ():
            found[f"{mine}, {what}"] = round(min(middle(peer, what) for peer in peers) / middle(mine, what), 2)
    return found


if __name__ == "__main__":
    main()
