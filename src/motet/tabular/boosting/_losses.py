"""What boosting descends on: each kind of task as loss, gradient and curvature of raw scores."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from motet._errors import RequestError
from motet.tasks import Binary, Count, Multiclass, Ordinal, Regression, Task

FLATTEST = 1e-6  # curvature below which a Newton step is not trusted
STEEPEST = 30.0  # log rate beyond which an exponential is no number worth having


@dataclass(frozen=True)
class Loss(ABC):
    """A loss of raw scores (N, C).

    Args:
        width: C.
    """

    width: int = 1

    @abstractmethod
    def start(self, targets_N: np.ndarray) -> np.ndarray:
        """The best constant score, (C,)."""

    @abstractmethod
    def rows(self, raw_NC: np.ndarray, targets_N: np.ndarray) -> np.ndarray:
        """Each row's loss, (N,)."""

    @abstractmethod
    def derivatives(self, raw_NC: np.ndarray, targets_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gradient and curvature in the scores, (N, C) each."""

    @abstractmethod
    def estimate(self, raw_NC: np.ndarray) -> np.ndarray:
        """Scores to values, (N,), or to probabilities, (N,) or (N, C)."""


@dataclass(frozen=True)
class Squared(Loss):
    """Half the squared error in units of the task's scale.

    Args:
        width: 1.
        center: subtracted from targets.
        scale: divides them.
    """

    center: float = 0.0
    scale: float = 1.0

    def start(self, targets_N: np.ndarray) -> np.ndarray:
        return np.array([self._plain(targets_N).mean()])

    def rows(self, raw_NC: np.ndarray, targets_N: np.ndarray) -> np.ndarray:
        return 0.5 * (raw_NC[:, 0] - self._plain(targets_N)) ** 2

    def derivatives(self, raw_NC: np.ndarray, targets_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return raw_NC - self._plain(targets_N)[:, None], np.ones_like(raw_NC)

    def estimate(self, raw_NC: np.ndarray) -> np.ndarray:
        return raw_NC[:, 0] * self.scale + self.center

    def _plain(self, targets_N: np.ndarray) -> np.ndarray:
        return (np.asarray(targets_N, dtype=np.float64) - self.center) / self.scale


@dataclass(frozen=True)
class Logistic(Loss):
    """Minus the log of the probability of the label; the score is the log odds."""

    def start(self, targets_N: np.ndarray) -> np.ndarray:
        share = (targets_N.sum() + 0.5) / (len(targets_N) + 1.0)
        return np.array([np.log(share / (1.0 - share))])

    def rows(self, raw_NC: np.ndarray, targets_N: np.ndarray) -> np.ndarray:
        return np.logaddexp(0.0, raw_NC[:, 0]) - targets_N * raw_NC[:, 0]

    def derivatives(self, raw_NC: np.ndarray, targets_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        share_NC = self.estimate(raw_NC)[:, None]
        return share_NC - targets_N[:, None], np.maximum(share_NC * (1.0 - share_NC), FLATTEST)

    def estimate(self, raw_NC: np.ndarray) -> np.ndarray:
        return np.exp(-np.logaddexp(0.0, -raw_NC[:, 0]))


@dataclass(frozen=True)
class Softmax(Loss):
    """Minus the log of the probability of the class; the scores are log odds up to a constant."""

    def start(self, targets_N: np.ndarray) -> np.ndarray:
        counts = np.bincount(targets_N.astype(np.int64), minlength=self.width) + 0.5
        return np.log(counts / counts.sum())

    def rows(self, raw_NC: np.ndarray, targets_N: np.ndarray) -> np.ndarray:
        top = raw_NC.max(axis=1)
        total = np.log(np.exp(raw_NC - top[:, None]).sum(axis=1)) + top
        return total - raw_NC[np.arange(len(raw_NC)), targets_N.astype(np.int64)]

    def derivatives(self, raw_NC: np.ndarray, targets_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        share_NC = self.estimate(raw_NC)
        wanted_NC = np.eye(self.width)[targets_N.astype(np.int64)]
        # The diagonal bounds the curvature of each score alone; this factor that of all moved together.
        factor = self.width / (self.width - 1.0)
        return share_NC - wanted_NC, np.maximum(factor * share_NC * (1.0 - share_NC), FLATTEST)

    def estimate(self, raw_NC: np.ndarray) -> np.ndarray:
        powers = np.exp(raw_NC - raw_NC.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)


@dataclass(frozen=True)
class Poisson(Loss):
    """exp(score) − target · score: the score is the log of the rate."""

    def start(self, targets_N: np.ndarray) -> np.ndarray:
        return np.array([np.log(max(float(targets_N.mean()), 1e-6))])

    def rows(self, raw_NC: np.ndarray, targets_N: np.ndarray) -> np.ndarray:
        return self.estimate(raw_NC) - targets_N * raw_NC[:, 0]

    def derivatives(self, raw_NC: np.ndarray, targets_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rate_NC = self.estimate(raw_NC)[:, None]
        return rate_NC - targets_N[:, None], np.maximum(rate_NC, FLATTEST)

    def estimate(self, raw_NC: np.ndarray) -> np.ndarray:
        return np.exp(np.minimum(raw_NC[:, 0], STEEPEST))


def loss_of(task: Task) -> Loss:
    """The loss of a fitted task.

    Raises:
        RequestError: a task of a kind that has none here.
    """
    task.check_fitted()
    if isinstance(task, Regression):
        return Squared(1, float(task.center or 0.0), float(task.scale or 1.0))
    if isinstance(task, Binary):
        return Logistic()
    if isinstance(task, Count):
        return Poisson()
    if isinstance(task, (Multiclass, Ordinal)):
        return Softmax(task.num_outputs if isinstance(task, Multiclass) else len(task.classes or ()))
    message = (
        f"Task '{task.name}' is of kind {task.kind}; robust boosting takes regression, binary, multiclass, ordinal and "
        "count. Predict it with another learner."
    )
    raise RequestError(message)
