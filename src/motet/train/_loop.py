"""The training loop: one model, several tasks, any labels missing."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from motet.balance import Balancer
from motet.data import TableRows
from motet.models import MultiTaskModel
from motet.train._best import Best
from motet.train._checkpoint import Progress, load_checkpoint, save_checkpoint
from motet.train._clock import Clock, Cost, Meter
from motet.train._conflicts import ConflictLog
from motet.train._scores import constant_scores, model_scores
from motet.train._session import Session

Emit = Callable[[Mapping[str, Any]], None]

MIXED_FROM = 256 * 256  # rows a step times width: below it, changing formats costs more than short products save
STOP_ROWS = 20_000  # more rows than these cost time and tell an evaluation nothing new


@dataclass(frozen=True)
class LoopSettings:
    """How long and how hard to train.

    Args:
        max_epochs: passes over the training rows at most.
        batch_size: rows a step.
        learning_rate: AdamW's, at the top of the schedule: a linear warm-up, then a linear way down to zero.
        weight_decay: AdamW's, on matrices.
        warmup_steps: steps until the top.
        patience: evaluations without progress in any task after which training ends.
        clip_norm: largest norm of the whole gradient.
        seed: of the order of rows and of dropout.
    """

    max_epochs: int
    batch_size: int
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    warmup_steps: int = 200
    patience: int = 10
    clip_norm: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Trained:
    """What training gave: the best states, and what they cost.

    Args:
        best: the best states.
        cost: seconds and rows.
        epochs: passes over the training rows.
        ended: `epochs`, `patience` or `time`.
    """

    best: Best
    cost: Cost
    epochs: float
    ended: str


class Trainer:
    """Trains one `MultiTaskModel` and keeps its best states.

    A batch may lack tasks; rows without any label are never drawn. The same seed gives the same result, and a run
    that was killed goes on from its checkpoint to the same result. With a time limit the learning rate falls with
    the clock, so that a run that ends early has still come down to zero; such a run repeats only as well as the
    machine's speed does. Products are in bfloat16 where the machine is faster so; all else, and what is evaluated, is
    in float32.

    Args:
        model: what is trained, on the CPU or on a device of its own.
        rows: the table's rows as tensors.
        settings: how long and how hard.
        balancer: turns the tasks' losses into one update.
        stage: what this training is called in the log.
        emit: takes every record of the log.
        checkpoint: file to resume from and to write to now and then, or None.
    """

    def __init__(
        self,
        model: MultiTaskModel,
        rows: TableRows,
        settings: LoopSettings,
        *,
        balancer: Balancer,
        stage: str,
        emit: Emit,
        checkpoint: Path | None = None,
    ) -> None:
        self.model = model
        self.rows = rows
        self.settings = settings
        self.balancer = balancer
        self.stage = stage
        self.emit = emit
        self.checkpoint = checkpoint
        self.device = next(model.parameters()).device
        self.is_mixed = _is_mixed(self.device, settings.batch_size * model.heads.weight_in.shape[1])
        self.conflicts = ConflictLog(model, stage=stage, emit=emit, seed=settings.seed)
        balancer.add_tasks(tuple(model.tasks))
        self.optimizer = _optimizer(model, balancer, settings)

    def fit(
        self, train_rows: np.ndarray, stop_rows: np.ndarray, *, clock: Clock, max_rows: int | None = None
    ) -> Trained:
        """Trains until no task makes progress, the epochs are done, `max_rows` have passed, or the clock has run out.

        Args:
            train_rows: numbers of the rows to learn from.
            stop_rows: numbers of the rows to evaluate on.
            clock: the time that there is.
            max_rows: how many rows may pass through the model, repeats counted.
        """
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(self.settings.seed)
            session = self._start(self._labelled(train_rows), stop_rows, clock, max_rows)
            ended = self._run(session)
        return Trained(session.best, session.cost, session.epoch, ended)

    def _start(self, train_rows: np.ndarray, stop_rows: np.ndarray, clock: Clock, max_rows: int | None) -> Session:
        batch_size = min(self.settings.batch_size, len(train_rows))
        total = -(-len(train_rows) // batch_size) * self.settings.max_epochs
        if max_rows is not None:
            total = max(1, min(total, max_rows // batch_size))
        stop_rows = _thinned(stop_rows, STOP_ROWS)
        constants = constant_scores(self.model, self.rows, train_rows, stop_rows)
        best = Best(list(self.model.tasks.values()), constants, self.settings.patience)
        progress = Progress()
        if self.checkpoint is not None and self.checkpoint.is_file():
            progress = load_checkpoint(self.checkpoint, self.model, self.optimizer, self.balancer, best)
            clock.add_spent(progress.cost.seconds)
        return Session(train_rows, stop_rows, batch_size, total, self.settings.seed, best, progress, clock)

    def _run(self, session: Session) -> str:
        # `done` is asked before each step: a checkpoint may have been written at the very evaluation that ended it all.
        while session.progress.step < session.total and not session.best.done:
            part_done = session.part_done()
            if part_done >= 1.0:
                break
            rows = session.next_rows()
            session.advance(len(rows), self._step(rows, part_done, session.progress.step))
            if session.evaluation_is_due():
                self._evaluate(session)
                if self.conflicts.is_due(session.meter.read().seconds):
                    self.conflicts.look(self.rows.take(rows).to(self.device), session.progress.step)
        if session.best.done:
            return "patience"
        if session.losses or not session.best.states:
            self._evaluate(session)
        return "epochs" if session.progress.step >= session.total else "time"

    def _labelled(self, rows: np.ndarray) -> np.ndarray:
        """The rows that have a label for at least one of the model's tasks."""
        labelled = torch.stack([self.rows.present[name] for name in self.model.tasks]).any(dim=0).numpy()
        return rows[labelled[rows]]

    def _step(self, rows: np.ndarray, part_done: float, step: int) -> dict[str, Tensor]:
        rate = self.settings.learning_rate * (1.0 - part_done) * min(1.0, (step + 1) / self.settings.warmup_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.model.train()
        batch = self.rows.take(rows).to(self.device)
        at_features = self.balancer.place == "features"
        first: dict[str, Tensor] = {}

        def evaluate() -> tuple[dict[str, Tensor], Tensor] | dict[str, Tensor]:
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.is_mixed):
                features = self.model.features(batch.inputs)
                outputs = self.model.outputs(features)
            outputs = {name: value.float() for name, value in outputs.items()}
            losses = self.model.losses(outputs, batch.targets, batch.present)
            if not first:
                first.update((name, loss.detach()) for name, loss in losses.items())
            return (losses, features) if at_features or self.balancer.needs_features else losses

        self.optimizer.zero_grad(set_to_none=True)
        shared = None if at_features else self.model.encoder.parameters()
        if self.balancer.backward(evaluate, shared=shared).ready:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
            self.optimizer.step()
        return first

    def _evaluate(self, session: Session) -> None:
        meter = Meter()
        scores = model_scores(self.model, self.rows, session.stop_rows)
        state = {name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()}
        better = session.best.update(scores, state)
        session.evaluated(meter.read().seconds)
        self.emit({
            "event": "evaluate",
            "stage": self.stage,
            "step": session.progress.step,
            "epoch": round(session.epoch, 3),
            "seconds": round(session.cost.seconds, 2),
            "losses": session.losses.take(),
            "scores": {name: round(score, 6) if np.isfinite(score) else None for name, score in scores.items()},
            "better": better,
        })  # fmt: skip
        if self.checkpoint is not None and session.progress.due():
            save_checkpoint(self.checkpoint, self.model, self.optimizer, self.balancer, session.best, session.progress)


def _is_mixed(device: torch.device, size: int) -> bool:
    """Whether products in bfloat16 are faster: on CUDA, and on processors with tiles for them (AMX)."""
    if device.type != "cpu":
        return device.type == "cuda"
    has_tiles = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return size >= MIXED_FROM and has_tiles()


def _thinned(rows: np.ndarray, most: int) -> np.ndarray:
    """Evenly chosen rows, `most` of them at most."""
    if len(rows) <= most:
        return rows
    return rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)]


def _optimizer(model: MultiTaskModel, balancer: Balancer, settings: LoopSettings) -> torch.optim.AdamW:
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim <= 1] + list(balancer.parameters())
    groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)
