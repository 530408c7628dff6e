"""Robust multi-task gradient boosting on LightGBM's trees."""

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from motet._errors import RequestError, require
from motet.tabular.boosting._ensemble import PLANS, Ensemble, Rows, State
from motet.tabular.boosting._gates import gate, is_turned
from motet.tabular.boosting._losses import Loss, loss_of
from motet.tabular.boosting._readings import TaskReading
from motet.tabular.boosting._rows import TaskRows, codes_of, with_codes
from motet.tabular.boosting._trees import TreeSettings
from motet.tasks import Task
from motet.train import Clock

ROUNDS, PATIENCE = 2000, 50
ROUNDS_UNSEEN = 100  # where there are no rows to stop on
SMALL = 20_000
WORTH = 0.05  # of the stop loss, that a split must save before its far side is called outliers
LEAVES = {"blocks": 15, "small": 15, "task": 31}  # several blocks add up; one alone needs larger trees


@dataclass(frozen=True)
class _Learned:
    """What was learned, as plain data.

    Args:
        names: of the tasks, in the order of their codes.
        start: constant scores.
        theta: gates.
        texts: LightGBM's text form of each block; empty for one without trees.
        plan: which blocks there are.
        losses: mean loss on the stop rows of each plan that was tried.
        readings: by task.
    """

    names: list[str]
    start: list[float]
    theta: list[float]
    texts: dict[str, str]
    plan: str
    losses: dict[str, float]
    readings: list[dict[str, Any]]


@dataclass(frozen=True)
class Parts:
    """What an answer is made of, for whoever writes it in another form.

    Args:
        texts: LightGBM's text form of each block; empty for one without trees.
        start: (C,) constant scores.
        shares: (T,) of the far side.
        loss: gives estimates of scores.
    """

    texts: Mapping[str, str]
    start: np.ndarray
    shares: np.ndarray
    loss: Loss


class RMTGB:
    """Boosted trees for rows that each belong to one task, which share what is alike and say which tasks stand apart.

    Choose it where tasks have few rows each and some may be unlike the rest; a table with every label in every row is
    for `TabularModel`. A row x of task r gets

        F(x, r) = F_common(x) + (1 − s_r) F_near(x) + s_r F_far(x) + F_task(x, r),    s_r = σ(θ_r)

    Each round adds one Newton tree to every block; near and far trees see gradients times 1 − s and s, curvatures
    times their squares; θ takes a damped Newton step on its own task's loss. Training stops when the stop rows' mean
    loss has not fallen for 50 rounds, and goes back to the best round. F_task alone, which is LightGBM on the pooled
    rows with the task as a category, is trained too, with 31 leaves and with 15, and the best of the three on the stop
    rows is kept. The far side is the one that fewer tasks are on. A task never seen gets the mean over the known tasks'
    answers.

    Args:
        task: the fitted task: regression, binary, multiclass, ordinal or count.
        learned: from `fit` or `from_bytes`.

    Cost: about six blocks of trees on the pooled rows. A task never seen costs as much as all T known ones.

    Source: Emami, Martínez-Muñoz and Hernández-Lobato (R-MTGB, Expert Systems with Applications 2025, arXiv
        2507.11411). Departures: rounds alternate between the blocks instead of finishing one before the next, since a
        common block that was finished first fits a mixture that no task has; F_task is one block of trees that may
        split on the task's name, so that tasks still share there; Newton leaves; θ starts from the tasks' rough answers
        instead of at random, and follows Newton steps instead of a sum of gradients; blocks stop on held-out rows. The
        released code grows stumps, never stops early, and renumbers tasks at prediction.

    Example:
        >>> import numpy as np
        >>> from motet.tasks import Regression
        >>> x = np.linspace(0, 1, 80, dtype=np.float32)[:, None]
        >>> rows = TaskRows(x, np.array(["a", "b"] * 40), x[:, 0])
        >>> RMTGB.fit(Regression("y", center=0.5, scale=0.3), rows, rows)[0].tasks
        ['a', 'b']
    """

    def __init__(self, task: Task, learned: _Learned) -> None:
        self.task = task
        self._learned, self._loss = learned, loss_of(task)
        lightgbm = require("lightgbm", "tables")
        self._models = {name: lightgbm.Booster(model_str=text) for name, text in learned.texts.items() if text}

    @classmethod
    def fit(
        cls, task: Task, train: TaskRows, stop: TaskRows, *, seed: int = 0, clock: Clock | None = None,
        threads: int = 1, plans: Sequence[str] = tuple(PLANS),
    ) -> tuple["RMTGB", int]:  # fmt: skip
        """Trains until the stop rows' loss no longer falls, or the clock has run out.

        Args:
            task: fitted on the train rows.
            train: to learn from.
            stop: to stop on, of the same columns; with none, 100 rounds are made.
            seed: of the trees.
            clock: seconds there are.
            threads: processor threads.
            plans: which to try: `blocks`, `small`, `task`.

        Returns:
            the model, and how many rows passed through trees in training.

        Raises:
            RequestError: no rows, another kind of task, or no such plan.
        """
        _check(task, train, plans)
        loss, clock = loss_of(task), clock or Clock()
        rate = 0.1 if len(train) >= SMALL else 0.05
        rows = Rows([train, *([stop] if len(stop) else [])], sorted(set(train.owners.astype(str).tolist())))
        rows = rows if len(rows.parts[-1]) else Rows(rows.parts[:1], rows.names)
        rounds = ROUNDS if len(rows.parts) > 1 else ROUNDS_UNSEEN
        wanted = [plan for plan in plans if plan != "blocks" or len(rows.names) > 1] or ["task"]
        found: dict[str, tuple[Ensemble, State]] = {}
        passed = 0
        for number, plan in enumerate(wanted):
            settings = TreeSettings(learning_rate=rate, num_leaves=LEAVES[plan], seed=seed, threads=threads)
            ensemble = Ensemble(rows, loss, settings, plan)
            found[plan] = (ensemble, ensemble.train(rounds, PATIENCE, clock.part(1.0 / (len(wanted) - number))))
            passed += sum(trees.count for trees in ensemble.blocks.values()) * len(train)
        best = min(wanted, key=lambda plan: found[plan][1].loss)
        losses = {plan: state.loss for plan, (_, state) in found.items()} if len(rows.parts) > 1 else {}
        model = cls(task, _learned(best, *found[best], losses))
        return cls(task, replace(model._learned, readings=model._read(rows))), passed

    @property
    def tasks(self) -> list[str]:
        """The names of the tasks that were learned."""
        return list(self._learned.names)

    @property
    def readings(self) -> list[TaskReading]:
        """How each task stands to the others, the furthest first."""
        found = [TaskReading(**reading) for reading in self._learned.readings]
        return sorted(found, key=lambda reading: -reading.share)

    @property
    def plan(self) -> str:
        """What won on the stop rows: `blocks` (the tasks are split), or LightGBM with the task: `small`, `task`."""
        return self._learned.plan

    @property
    def stop_losses(self) -> Mapping[str, float]:
        """The mean loss on the stop rows of each plan that was tried."""
        return dict(self._learned.losses)

    def estimate(self, matrix: np.ndarray, owners: np.ndarray, *, threads: int = 1) -> np.ndarray:
        """Estimates for rows of an encoded matrix (N, F) and the names (N,) of their tasks, known or not."""
        codes = codes_of(owners, self._learned.names)
        known = codes >= 0
        raw = np.empty((len(matrix), self._loss.width))
        raw[known] = self._raw(matrix[known], codes[known], threads)
        if not known.all():
            unseen, total = matrix[~known], 0.0
            for code in range(len(self._learned.names)):
                total = total + self._raw(unseen, np.full(len(unseen), code), threads)
            raw[~known] = total / len(self._learned.names)
        return self._loss.estimate(raw)

    def to_bytes(self) -> bytes:
        """All that was learned, compressed; the task is kept by its own `to_dict`."""
        return zlib.compress(json.dumps(asdict(self._learned)).encode(), level=6)

    @classmethod
    def from_bytes(cls, task: Task, data: bytes) -> "RMTGB":
        """Reads what `to_bytes` wrote."""
        return cls(task, _Learned(**json.loads(zlib.decompress(data))))

    def _raw(
        self, matrix: np.ndarray, codes: np.ndarray, threads: int, share_T: np.ndarray | None = None
    ) -> np.ndarray:
        """Scores (N, C), with the learned gates or with others."""
        found = np.repeat(np.array([self._learned.start]), len(matrix), axis=0)
        if not len(matrix):
            return found
        share_N1 = (self._shares() if share_T is None else share_T)[codes][:, None]
        weights = {"near": 1.0 - share_N1, "far": share_N1}
        for name, model in self._models.items():
            rows = with_codes(matrix, codes) if name == "task" else matrix
            scores = np.asarray(model.predict(rows, raw_score=True, num_threads=threads))
            found += weights.get(name, 1.0) * scores.reshape(len(matrix), -1)
        return found

    def _shares(self) -> np.ndarray:
        """Each task's share of the far side, (T,); zero without a split."""
        theta_T = np.array(self._learned.theta)
        return gate(theta_T) if "far" in self._models else np.zeros(len(theta_T))

    def _read(self, rows: Rows) -> list[dict[str, Any]]:
        """Each task's reading: what its stop rows would lose on the near side."""
        share_T, num_tasks = self._shares(), len(rows.names)
        counts = np.bincount(rows.codes[0], minlength=num_tasks)
        plain = [loss for plan, loss in self._learned.losses.items() if plan != "blocks"]
        ours = self._learned.losses.get(self.plan, np.nan)
        split_pays = num_tasks > 2 and (not plain or min(plain) - ours > WORTH * abs(min(plain)))
        gains = np.full(num_tasks, np.nan)
        if len(rows.parts) > 1:
            stop, codes = rows.parts[1], rows.codes[1]
            losses = []
            for gates in (share_T, np.zeros(num_tasks)):
                lost = self._loss.rows(self._raw(stop.matrix, codes, 1, gates), stop.targets)
                losses.append(np.bincount(codes, lost, num_tasks))
            with np.errstate(divide="ignore", invalid="ignore"):
                gains = 100.0 * (losses[1] - losses[0]) / np.abs(losses[0])
        return [
            asdict(TaskReading(
                name, int(counts[place]), round(float(share_T[place]), 4),
                round(float(gains[place]), 3) if np.isfinite(gains[place]) else None,
                bool(split_pays and share_T[place] > 0.5 and not gains[place] <= 0.0),
            ))
            for place, name in enumerate(rows.names)
        ]  # fmt: skip


def parts_of(model: RMTGB) -> Parts:
    """What a model's answers are made of."""
    learned = model._learned
    return Parts(learned.texts, np.array(learned.start), model._shares(), model._loss)


def _check(task: Task, train: TaskRows, plans: Sequence[str]) -> None:
    if not len(train):
        message = f"Task '{task.name}' has no labelled train row; boosting needs some. Give rows with labels."
        raise RequestError(message)
    if not plans or not set(plans) <= set(PLANS):
        message = f"The plans {list(plans)!r} were asked for; one or more of {', '.join(PLANS)} were expected. Choose."
        raise RequestError(message)


def _learned(plan: str, ensemble: Ensemble, state: State, losses: dict[str, float]) -> _Learned:
    """The best round, with the far side as the one that fewer tasks are on."""
    texts = {name: trees.text(state.counts[name]) for name, trees in ensemble.blocks.items()}
    theta = state.theta
    if "far" in texts and is_turned(theta):
        theta, texts["near"], texts["far"] = -theta, texts["far"], texts["near"]
    return _Learned(ensemble.rows.names, ensemble.start.tolist(), theta.tolist(), texts, plan, losses, [])
