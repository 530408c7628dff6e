"""Checkpoints of an unfinished training: safetensors and JSON, so that nothing in them is code."""

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from motet.balance import Balancer
from motet.models import MultiTaskModel
from motet.train._best import Best
from motet.train._clock import Cost
from motet.train._files import read_tensors, write_tensors

SECONDS_BETWEEN = 10.0


@dataclass
class Progress:
    """How far training has come."""

    step: int = 0
    rows: int = 0
    cost: Cost = field(default_factory=Cost)
    saved_at: float = field(default_factory=time.monotonic)

    def due(self) -> bool:
        """Whether the last checkpoint is old enough to write another."""
        return time.monotonic() - self.saved_at >= SECONDS_BETWEEN


def save_checkpoint(
    path: Path,
    model: MultiTaskModel,
    optimizer: torch.optim.Optimizer,
    balancer: Balancer,
    best: Best,
    progress: Progress,
) -> None:
    """Writes all that training needs to go on to the same result."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"balancer.{name}": value for name, value in balancer.state_dict().items()}
    for number, slots in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{slot}": value for slot, value in slots.items()}
    tensors["rng.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["rng.cuda"] = torch.cuda.get_rng_state()
    states = list({id(state): state for state in [best.joint_state, *best.states.values()]}.values())
    for number, state in enumerate(states):
        tensors |= {f"best.{number}.{name}": value for name, value in state.items()}
    places = {id(state): number for number, state in enumerate(states)}
    header = {
        "step": progress.step,
        "rows": progress.rows,
        "cost": asdict(progress.cost),
        "joint": places[id(best.joint_state)],
        "joint_skill": best.joint_skill,
        "joint_scores": best.joint_scores,
        "states": {name: places[id(state)] for name, state in best.states.items()},
        "skills": best.skills,
        "scores": best.scores,
        "waited": best.waited,
    }
    write_tensors(path, tensors, {"progress": json.dumps(header)})
    progress.saved_at = time.monotonic()


def load_checkpoint(
    path: Path, model: MultiTaskModel, optimizer: torch.optim.Optimizer, balancer: Balancer, best: Best
) -> Progress:
    """Puts back what `save_checkpoint` wrote."""
    tensors, metadata = read_tensors(path)
    header = json.loads(metadata["progress"])
    model.load_state_dict(_under(tensors, "model."))
    balancer.load_state_dict(_under(tensors, "balancer."))
    slots: dict[int, dict[str, Tensor]] = {}
    for name, value in _under(tensors, "optimizer.").items():
        number, slot = name.split(".", 1)
        slots.setdefault(int(number), {})[slot] = value
    optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})
    torch.set_rng_state(tensors["rng.cpu"])
    if "rng.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["rng.cuda"])
    numbers = {header["joint"], *header["states"].values()}
    states = {number: _under(tensors, f"best.{number}.") for number in numbers}
    best.joint_state, best.joint_skill = states[header["joint"]], header["joint_skill"]
    best.joint_scores = header["joint_scores"]
    best.states = {name: states[number] for name, number in header["states"].items()}
    best.skills, best.scores, best.waited = header["skills"], header["scores"], header["waited"]
    return Progress(header["step"], header["rows"], Cost(**header["cost"]))


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
