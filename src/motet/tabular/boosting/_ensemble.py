"""The three blocks in training: a round adds to each, and the gates follow."""

import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from motet.tabular.boosting._gates import first_gates, gate, moved
from motet.tabular.boosting._losses import Loss
from motet.tabular.boosting._rows import TaskRows, codes_of, with_codes
from motet.tabular.boosting._trees import Trees, TreeSettings, binned
from motet.train import Clock

RATES = {"common": 0.3, "near": 1.0, "far": 1.0, "task": 0.3}  # of the learning rate; measured, see the class
PLANS = {"blocks": ("common", "near", "far", "task"), "small": ("task",), "task": ("task",)}
FIRST_ROUNDS, FIRST_POINTS = 30, 200  # of the rough answers that the gates start from
NOTHING = 1e-9  # curvature of a row that is not on this side; zero would divide by zero


@dataclass(frozen=True)
class State:
    """A finished moment of training: the round to go back to.

    Args:
        loss: mean over the stop rows.
        rounds: how many were made.
        theta: the gates.
        counts: trees of each block.
    """

    loss: float
    rounds: int
    theta: np.ndarray
    counts: dict[str, int]


@dataclass
class Rows:
    """Train and stop rows as boosting takes them: matrices, each row's task, targets.

    Args:
        parts: train, and stop where it has rows.
        names: of the tasks, in the order of their codes.
    """

    parts: list[TaskRows]
    names: list[str]
    codes: list[np.ndarray] = field(init=False)

    def __post_init__(self) -> None:
        self.codes = [codes_of(part.owners, self.names) for part in self.parts]
        # A task that has stop rows and no train rows teaches nothing and stops nothing.
        kept = [codes >= 0 for codes in self.codes]
        self.parts = [TaskRows(part.matrix[keep], part.owners[keep], part.targets[keep], part.num_categories)
                      for part, keep in zip(self.parts, kept, strict=True)]  # fmt: skip
        self.codes = [codes[keep] for codes, keep in zip(self.codes, kept, strict=True)]


class Ensemble:
    """F = F_common + (1 − s) F_near + s F_far + F_task, grown by a plan that names its blocks.

    Args:
        rows: train and stop.
        loss: what is descended on.
        settings: how trees are grown.
        plan: a key of `PLANS`.
    """

    def __init__(self, rows: Rows, loss: Loss, settings: TreeSettings, plan: str) -> None:
        self.rows, self.loss, self.settings = rows, loss, settings
        self.start = loss.start(rows.parts[0].targets)
        self.theta = np.zeros(len(rows.names))
        matrices, categories = [part.matrix for part in rows.parts], rows.parts[0].num_categories
        coded = [with_codes(matrix, codes) for matrix, codes in zip(matrices, rows.codes, strict=True)]
        with_task = binned(coded, categories + 1)
        without = binned(matrices, categories) if "common" in PLANS[plan] else []
        gradient_NC, curvature_NC = self._derivatives()
        row = float(curvature_NC.mean())
        self.blocks = {
            name: Trees(with_task if name == "task" else without, settings, width=loss.width,
                        rate=settings.learning_rate * (RATES[name] if plan == "blocks" else 1.0),
                        least=settings.min_rows * row if name in ("near", "far") else 1e-3)
            for name in PLANS[plan]
        }  # fmt: skip
        if "far" in self.blocks:
            self.theta = self._first_gates(with_task, coded[0], gradient_NC, curvature_NC)

    def train(self, rounds: int, patience: int, clock: Clock) -> State:
        """Adds rounds until the stop rows' loss has not fallen for `patience` of them; gives the best."""
        best = self._state(0)
        for number in range(1, rounds + 1):
            if clock.left <= 0:
                break
            self._round()
            state = self._state(number)
            if state.loss < best.loss or len(self.rows.parts) == 1:
                best = state
            if number - best.rounds >= patience:
                break
        return best

    def raw(self, part: int) -> np.ndarray:
        """The scores (N, C) of the train rows (0) or the stop rows (1)."""
        share_N1 = gate(self.theta)[self.rows.codes[part]][:, None]
        weights = {"near": 1.0 - share_N1, "far": share_N1}
        found = np.broadcast_to(self.start, (len(self.rows.parts[part]), self.loss.width)).copy()
        for name, trees in self.blocks.items():
            found += weights.get(name, 1.0) * trees.scores[part]
        return found

    def _round(self) -> None:
        if "common" in self.blocks:
            self.blocks["common"].grow(*self._derivatives())
        if "far" in self.blocks:
            self._split_round()
        self.blocks["task"].grow(*self._derivatives())

    def _split_round(self) -> None:
        """Gates first, then one tree a side on its share of the gradient, and on its share squared of the curvature."""
        gradient_NC, curvature_NC = self._derivatives()
        near, far = self.blocks["near"], self.blocks["far"]
        gap_NC = far.scores[0] - near.scores[0]
        self.theta = moved(self.theta, self.rows.codes[0], gap_NC, gradient_NC, curvature_NC)
        share_N1 = gate(self.theta)[self.rows.codes[0]][:, None]
        gradient_NC, curvature_NC = self._derivatives()
        for trees, part_N1 in ((near, 1.0 - share_N1), (far, share_N1)):
            trees.grow(gradient_NC * part_N1, curvature_NC * part_N1**2 + NOTHING)

    def _derivatives(self) -> tuple[np.ndarray, np.ndarray]:
        raw = self.raw(0) if hasattr(self, "blocks") else np.broadcast_to(
            self.start, (len(self.rows.parts[0]), self.loss.width))  # fmt: skip
        return self.loss.derivatives(raw, self.rows.parts[0].targets)

    def _state(self, number: int) -> State:
        last = len(self.rows.parts) - 1
        loss = float(self.loss.rows(self.raw(last), self.rows.parts[last].targets).mean())
        return State(loss, number, copy.copy(self.theta), {name: trees.count for name, trees in self.blocks.items()})

    def _first_gates(
        self, with_task: list[Any], coded: np.ndarray, gradient_NC: np.ndarray, curvature_NC: np.ndarray
    ) -> np.ndarray:
        """Each task's rough answers at the same points: a few trees that know the task, from the constant."""
        rough = Trees(with_task[:1], self.settings, width=self.loss.width, rate=0.2, least=1e-3)
        for _ in range(FIRST_ROUNDS):
            rough.grow(gradient_NC, curvature_NC)
            gradient_NC, curvature_NC = self.loss.derivatives(self.start + rough.scores[0], self.rows.parts[0].targets)
        draw = np.random.default_rng(self.settings.seed)
        points = coded[draw.permutation(len(coded))[:FIRST_POINTS]].copy()
        answers = []
        for code in range(len(self.rows.names)):
            points[:, -1] = code
            answers.append(rough.predict(points).ravel())
        return first_gates(np.stack(answers))
