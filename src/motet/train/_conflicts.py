"""What the log says of the tasks' gradients while a model trains, within a fiftieth of the time."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from motet.balance import Diagnosis, cosines, gradient_gramian
from motet.data import Batch
from motet.models import MultiTaskModel
from motet.train._clock import Meter

SHARE = 0.02  # of the training's time at most, once the first observation has been made
MOST_TASKS = 16  # up to here all are compared at the encoder's parameters; above it at the features, and some by layer


class ConflictLog:
    """Logs who pulls against whom, and in which layer of the encoder, as often as the time that it may cost allows.

    The first observation is always made, so that a short training shows something; each later one waits until it and
    all before it are at most `SHARE` of the time, as the last one's cost tells.

    Args:
        model: what is trained; in `look` it goes into evaluation mode, so that dropout and its random numbers are left
            alone.
        stage: what this training is called in the log.
        emit: takes the records.
        seed: of the choice of tasks where there are many.
    """

    def __init__(
        self, model: MultiTaskModel, *, stage: str, emit: Callable[[Mapping[str, Any]], None], seed: int
    ) -> None:
        self.model, self.stage, self.emit = model, stage, emit
        # A frozen encoder, or one without parameters, holds nothing that the tasks could fight over.
        learns = len(model.tasks) > 1 and any(parameter.requires_grad for parameter in model.encoder.parameters())
        self.diagnosis = Diagnosis(model.encoder, every=1, max_tasks=MOST_TASKS, keep=1, seed=seed) if learns else None
        self.spent = self.last = 0.0

    def is_due(self, seconds: float) -> bool:
        """Whether an observation may be made after so many seconds of training."""
        if self.diagnosis is None:
            return False
        return self.spent == 0.0 or self.spent + self.last <= SHARE * seconds

    def look(self, batch: Batch, step: int) -> None:
        """Logs one observation on a batch."""
        meter = Meter()
        self.model.eval()
        features = self.model.features(batch.inputs)
        losses = self._losses(features, batch)
        record = self.diagnosis.observe(losses, step=step) if self.diagnosis is not None and len(losses) > 1 else None
        if record is not None:
            whole = _at_features(losses, features) if len(losses) > MOST_TASKS else record
            head = {"stage": self.stage, "step": step}
            self.emit({"event": "conflict"} | head | {key: whole[key] for key in ("tasks", "cosines", "norms")})
            by_layer = {key: record[key] for key in ("tasks", "layers", "differences")}
            self.emit({"event": "diagnosis"} | head | by_layer)
        self.last = meter.read().seconds
        self.spent += self.last

    def _losses(self, features: Tensor, batch: Batch) -> dict[str, Tensor]:
        """The tasks' losses, each head called for itself: stacked, a task's backward would pass through every head."""
        found: dict[str, Tensor] = {}
        for name in self.model.tasks:
            found |= self.model.losses(self.model.outputs(features, [name]), batch.targets, batch.present)
        return found


def _at_features(losses: Mapping[str, Tensor], features: Tensor) -> dict[str, Any]:
    """The comparison of all tasks, at the shared features."""
    gramian = gradient_gramian(losses, [features])
    return {
        "tasks": list(losses),
        "cosines": [_rounded(row) for row in cosines(gramian).tolist()],
        "norms": _rounded(gramian.diagonal().sqrt().tolist()),
    }


def _rounded(values: Sequence[float]) -> list[float | None]:
    return [float(f"{value:.4g}") if math.isfinite(value) else None for value in values]
