"""Gradient conductor (GCond)."""

import math
from typing import ClassVar

import torch
from torch import Tensor

from motet.balance._balancer import Balancer, Update
from motet.balance._claims import Golden
from motet.balance.engine._conflict import cosines
from motet.balance.engine._view import View
from motet.balance.parts._coordinates import gradient_rows, inner_products, norms, sorted_gramian
from motet.balance.parts._per_task import PerTask

_WEAK, _MAIN, _CRITICAL = 0.0, -0.5, -0.8
_DOMINANCE = 3
_TIE = 1e-9  # what is as near as this counts as equal, so that rounding settles nothing


class GCond(Balancer):
    """Settles conflicts pair by pair, in favour of the task whose gradient is the steadier, and adds momentum.

    Choose it with gradients accumulated over several micro-batches, for which it was made: what it calls steady is
    then signal and not chance. `Accumulation(GCond())` does so, with every task a micro-batch or with one.

        score_k = 0.8 · max(0, cos(g_k, g'_k)) + 0.2 · r_k / (r_i + r_j),   r_k = ‖g_k‖ / its running mean
        for the pair (i, j) of least cosine c < 0, at most 2K times; w the one of higher score, l the other:
            g_w ← g_w − sin α · (g_w·g_l / ‖g_l‖²) g_l;   g_l ← g_l − sin min(α, π/2) · (g_w·g_l / ‖g_w‖²) g_w
        α from 0 at c = 0 to π/2 at c = −0.5, linearly, and on to π at c = −0.8, by the square
        m ← β m + (1 − β) Σ_k g_k;  d = m / (1 − β^t)

    with g'_k the task's gradient of its last step. A strong conflict (α = π) leaves the winner whole.
    Who wins jumps: with many tasks in few dimensions, the last digit of a gradient can change the outcome.

    State belongs to a coordinate: with `features=` that is a row and feature, which is right only where
    the rows are the same at every step, as in training on the full batch.

    Args:
        momentum: β.
        norm_decay: of the running mean of each task's gradient norm.
        skip_bad: leave a task with a NaN or infinite loss out of the step instead of raising.

    Raises:
        RequestError: from `backward`, where the shared parameters are not those of the steps before.

    Cost: T backward passes; (T + 1, P) numbers kept from step to step, and (T, P) within the step; the arbitration
        works on the Gramian.

    Source: Limarenko et al., GCond: Gradient Conflict Resolution via Accumulation-based Stabilization for
        Large-Scale Multi-Task Learning, 2025, with the released code's defaults and its smooth mode. Departures:
        accumulation over micro-batches is `Accumulation`'s, and the optimiser's sign and trust ratio are not part of
        this; state has the gradients' dtype, not bf16; ties go to the first name, and cosines above −1e-9 are no
        conflict, so that rounding wins nothing. A task that won the last three arbitrations loses the next, as in the
        released code (its README says that it wins), since nothing else keeps one task from dominating.
    """

    name: ClassVar[str] = "gcond"
    place = "parameters"  # state belongs to a parameter; a row of a batch is another one next time
    golden: ClassVar[tuple[Golden, ...]] = (
        Golden(((1.0, 0.0), (-0.5, 3**0.5 / 2)), (0.75, 1.299038105676658), "by hand: c = −0.5, both are projected"),
        Golden(((2.0, 0.0), (-3.0, 0.0)), (2.0, 0.0), "by hand: c = −1, a tie; the first name stays whole"),
    )

    def __init__(self, *, momentum: float = 0.85, norm_decay: float = 0.95, skip_bad: bool = False) -> None:
        super().__init__(skip_bad=skip_bad)
        self.momentum, self.norm_decay = momentum, norm_decay
        self.previous, self.lengths, self.streaks = PerTask(), PerTask(), PerTask()
        self.average = PerTask()
        self.steps: Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def update(self, view: View) -> Update:
        """The momentum of the reconciled gradients."""
        rows = gradient_rows(view)
        names, zero = view.names, torch.zeros_like(rows[0])
        lengths = norms(rows)
        means = self.lengths.rows(names, lengths.new_full((), -1.0))
        means = torch.where(means < 0, lengths, self.norm_decay * means + (1 - self.norm_decay) * lengths)
        strengths = torch.where(means > 0, lengths / means.clamp(min=1e-300), 0.0)
        stability = _row_cosines(rows, self.previous.rows(names, zero)).clamp(min=0)
        streaks = self.streaks.rows(names, lengths.new_zeros(()))
        self.previous.set(names, rows)
        self.lengths.set(names, means)
        order = sorted(range(len(names)), key=names.__getitem__)
        arbiter = _Arbiter(sorted_gramian(rows, order).cpu(), stability[order], strengths[order])
        arbiter.streaks = streaks[order].tolist()
        weights = torch.zeros_like(lengths)
        weights[order] = arbiter.settle().to(weights)
        if arbiter.streaks != streaks[order].tolist():
            self.streaks.reset()  # whoever the batch lacks did not win the last one
        self.streaks.set([names[place] for place in order], lengths.new_tensor(arbiter.streaks))
        self.steps += 1
        average = self.momentum * self.average.rows(["direction"], zero)[0]
        average = average + (1 - self.momentum) * (weights.to(rows) @ rows)
        self.average.set(["direction"], average.unsqueeze(0))
        return Update(direction=average / (1 - self.momentum ** int(self.steps)))

    def reset(self) -> None:
        """Forgets gradients, norms, streaks and momentum."""
        for state in (self.previous, self.lengths, self.streaks, self.average):
            state.reset()
        self.steps.zero_()


class _Arbiter:
    """Settles conflicts among T gradients that are known by their Gramian alone."""

    def __init__(self, gramian: Tensor, stability: Tensor, strengths: Tensor) -> None:
        self.gramian = gramian
        self.stability, self.strengths = stability.tolist(), strengths.tolist()
        self.coefficients = torch.eye(len(gramian), dtype=gramian.dtype)
        self.streaks = [0.0] * len(gramian)
        self.floor = 1e-8 * gramian.diagonal()  # what is left of a gradient is rounding from here on

    def settle(self) -> Tensor:
        """The weights (T,) of the original gradients in the sum of the settled ones."""
        for _ in range(2 * int((self.floor > 0).sum())):
            known = self.gramian.diagonal() > self.floor
            matrix = cosines(torch.where(known.unsqueeze(0) & known.unsqueeze(1), self.gramian, 0.0))
            least = float(matrix.min())
            if least >= _WEAK - _TIE:
                break
            first, second = (matrix <= least + _TIE).nonzero()[0].tolist()
            winner, loser = self._rank(first, second)
            self._project(winner, loser, smooth_angle(float(matrix[first, second])))
        return self.coefficients.sum(dim=0)

    def _rank(self, first: int, second: int) -> tuple[int, int]:
        total = self.strengths[first] + self.strengths[second]
        scores = [
            0.8 * self.stability[place] + 0.2 * (self.strengths[place] / total if total > 0 else 0.5)
            for place in (first, second)
        ]
        winner, loser = (first, second) if scores[0] >= scores[1] - _TIE else (second, first)
        if self.streaks[winner] >= _DOMINANCE:
            winner, loser = loser, winner
        self.streaks = [self.streaks[winner] + 1 if place == winner else 0.0 for place in range(len(self.streaks))]
        return winner, loser

    def _project(self, winner: int, loser: int, angle: float) -> None:
        # sin π is not quite 0 in floating point, and would move the winner of a strong conflict.
        part = 0.0 if angle >= math.pi else math.sin(angle)
        inner = self.gramian[winner, loser]
        towards_loser = -part * inner / self.gramian[loser, loser]
        towards_winner = -math.sin(min(angle, math.pi / 2)) * inner / self.gramian[winner, winner]
        one = torch.ones_like(inner)
        change = torch.stack([one, towards_loser, towards_winner, one]).reshape(2, 2)
        pair = [winner, loser]
        self.coefficients[pair] = change @ self.coefficients[pair]
        self.gramian[pair] = change @ self.gramian[pair]
        self.gramian[:, pair] = self.gramian[:, pair] @ change.T


def smooth_angle(cosine: float) -> float:
    """α: how strongly a conflict of this cosine is settled, from 0 over π/2 to π."""
    if cosine >= _MAIN:
        return math.pi / 2 * (1 - (cosine - _MAIN) / (_WEAK - _MAIN))
    if cosine <= _CRITICAL:
        return math.pi
    return math.pi / 2 * (1 + ((cosine - _MAIN) / (_CRITICAL - _MAIN)) ** 2)


def _row_cosines(rows: Tensor, others: Tensor) -> Tensor:
    products = torch.stack(
        [inner_products(row.unsqueeze(0), other.unsqueeze(0))[0, 0] for row, other in zip(rows, others, strict=True)]
    )
    scale = norms(rows) * norms(others)
    return torch.where(scale > 0, products / scale.clamp(min=1e-300), 0.0)
