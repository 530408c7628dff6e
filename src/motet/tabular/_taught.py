"""A task that is taught: by its labels where there are any, and by a teacher's estimates where there are those."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from motet.tasks import Count, Multiclass, Multilabel, Ordinal, Quantile, Regression, Task

SOFT_SHARE = 0.5  # of the loss of a row that has both a label and an estimate
_TINY = 1e-30  # a probability or a mean of zero has a logarithm of its own no longer


@dataclass(frozen=True)
class Taught:
    """Another task, whose targets hold the label and, after it, what a teacher estimates for the same row.

    The loss of a row is the task's own from the label alone, the distance to the teacher from the estimate alone, and
    half of each from both. Everything but the loss is the other task's, and scores are of the rows with a label. It is
    what training asks of a task, and no kind of task: nothing is ever read or saved as one.

    Args:
        inner: the other task, fitted.
        scale: what the loss is divided by.
    """

    inner: Task
    scale: float = 1.0

    masked_loss = Task.masked_loss

    @property
    def name(self) -> str:
        """The other task's."""
        return self.inner.name

    @property
    def num_outputs(self) -> int:
        """The other task's."""
        return self.inner.num_outputs

    @property
    def higher_is_better(self) -> bool:
        """The other task's."""
        return self.inner.higher_is_better

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of each row, (B,), from raw outputs and packed targets (B, L + K)."""
        label, soft, known, taught = self._parts(outputs, targets)
        by_label = self.inner.loss(outputs, label)
        by_teacher = distance(self.inner, outputs, soft)
        share = torch.where(known, torch.where(taught, SOFT_SHARE, 0.0), 1.0).to(by_label.dtype)
        found = torch.where(known, (1.0 - share) * by_label, 0.0) + torch.where(taught, share * by_teacher, 0.0)
        return found / self.scale

    def estimate(self, outputs: Tensor) -> Tensor:
        """The other task's."""
        return self.inner.estimate(outputs)

    def baseline(self, targets: np.ndarray) -> np.ndarray:
        """The estimate of the best constant of the labels among packed targets."""
        return self.inner.baseline(labels_of(self.inner, targets)[0])

    def initial_outputs(self, targets: np.ndarray) -> np.ndarray:
        """Raw outputs that give that constant."""
        return self.inner.initial_outputs(labels_of(self.inner, targets)[0])

    def score(self, estimates: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        """The main metric over the rows with a label; NaN where there is none."""
        labels, known = labels_of(self.inner, targets)
        if not known.any():
            return np.full(1 if weights is None else len(weights), np.nan)
        return self.inner.score(estimates[known], labels, None if weights is None else weights[:, known])

    def _parts(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Label and estimate of each row, zero where there is none, and where there are."""
        width = label_width(self.inner)
        label, soft = targets[:, :width], targets[:, width:]
        known, taught = ~label.isnan().all(dim=1), ~soft.isnan().any(dim=1)
        # The zeros go in before the losses: a NaN behind torch.where would come back in the gradient.
        label = torch.where(known[:, None], label, torch.zeros_like(label))
        soft = torch.where(taught[:, None], soft, torch.zeros_like(soft)).to(outputs.dtype)
        return label if isinstance(self.inner, Multilabel) else label[:, 0], soft, known, taught


def pack(targets: np.ndarray, known: np.ndarray, soft: np.ndarray | None, task: Task) -> np.ndarray:
    """Labels and estimates side by side, (N, L + K) float32, NaN for what a row lacks.

    Args:
        targets: (N,) or (N, L) as the task encodes them.
        known: (N,) bool, which rows have a label.
        soft: (N, K) estimates, NaN where the teacher says nothing; None for nothing at all.
        task: whose they are.
    """
    labels = targets.reshape(len(targets), label_width(task)).astype(np.float32)
    labels[~known] = np.nan
    silent = np.full((len(targets), estimate_width(task)), np.nan, dtype=np.float32)
    return np.concatenate([labels, silent if soft is None else soft], axis=1, dtype=np.float32)


def labels_of(task: Task, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The labels among packed targets as the task encodes them, and which rows (N,) have one."""
    labels = targets[:, : label_width(task)]
    known = np.asarray(~np.isnan(labels).all(axis=1))
    found = labels[known] if isinstance(task, Multilabel) else labels[known, 0]
    return (found.astype(np.int64) if isinstance(task, (Multiclass, Ordinal)) else found), known


def label_width(task: Task) -> int:
    """Numbers in a label: one for each of several labels at once, else one."""
    return task.num_outputs if isinstance(task, Multilabel) else 1


def estimate_width(task: Task) -> int:
    """Numbers in an estimate of a row."""
    if isinstance(task, (Multiclass, Ordinal)):
        return len(task.classes or ())
    return task.num_outputs if isinstance(task, (Multilabel, Quantile)) else 1


def distance(task: Task, outputs: Tensor, soft: Tensor) -> Tensor:
    """How far raw outputs (B, num_outputs) are from estimates (B, K), a row (B,); zero where they agree.

    The Kullback-Leibler divergence for classes and yes/no, half the squared standardised difference for numbers and
    quantiles, half the Poisson deviance for counts, over the scale as the task's own loss is.
    """
    found = task.estimate(outputs)
    found = found[:, None] if found.ndim == 1 else found
    if isinstance(task, Regression | Quantile):
        return 0.5 * ((found - soft) / (task.scale or 1.0)).square().mean(dim=1)
    if isinstance(task, Count):
        half = found - soft + torch.xlogy(soft, soft) - soft * found.clamp_min(_TINY).log()
        return half[:, 0] / max(task.scale or 1.0, 1.0)
    if isinstance(task, (Multiclass, Ordinal)):
        return (torch.xlogy(soft, soft) - soft * found.clamp_min(_TINY).log()).sum(dim=1)
    known = torch.special.entr(soft) + torch.special.entr(1.0 - soft)
    crossed = torch.nn.functional.binary_cross_entropy_with_logits(outputs.to(soft.dtype), soft, reduction="none")
    return (crossed - known).mean(dim=1)
