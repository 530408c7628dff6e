"""Gradient vaccine (GradVac)."""

from typing import ClassVar

import torch
from torch import Tensor

from motet.balance._claims import Golden
from motet.balance._pcgrad import random_orders
from motet.balance.engine._sketch import Source
from motet.balance.engine._update import Update
from motet.balance.engine._view import View
from motet.balance.parts._gramian_method import GramianBalancer
from motet.balance.parts._pair_memory import PairMemory
from motet.balance.parts._solvers import directions, precision

_LIMIT = 1 - 1e-6  # a target of one would ask for an infinite multiple of the other gradient


class GradVac(GramianBalancer):
    """Pulls each pair of gradients up to the cosine that the pair usually has.

    Choose it where related tasks should agree more than they do in one noisy batch, as languages in translation.

        φ = cos(p_i, g_j); where φ < φ̂_ij:  p_i ← p_i + ‖p_i‖ (φ̂ √(1−φ²) − φ √(1−φ̂²)) / (‖g_j‖ √(1−φ̂²)) g_j
        φ̂_ij ← (1 − β) φ̂_ij + β φ;   d = Σ_i p_i

    Args:
        beta: how fast the targets follow, in (0, 1].
        seed: of the stream of orders.
        gramian: "exact"; or "sketch" or a `Sketch`, for an estimate from part of the rows.
        skip_bad: leave a task with a NaN or infinite loss out of the step instead of raising.

    Cost: the Gramian, T vector operations on (T, T), and T² numbers of state.

    Source: Wang et al., Gradient Vaccine: Investigating and Improving Multi-task Optimization in Massively Multilingual
        Models, ICLR 2021, algorithm 1, β = 1e-2. Departures: whole gradients and not one layer at a time; targets
        at most 1 − 1e-6, since a target of one has no solution; heads keep their own gradient.
    """

    name: ClassVar[str] = "gradvac"
    claims: ClassVar[frozenset[str]] = frozenset({
        "scale equivariant", "mean when agreeing", "one task is plain", "zero is harmless",
    })  # fmt: skip
    golden: ClassVar[tuple[Golden, ...]] = (
        Golden(((1.0, 0.0), (-1.0, 1.0)), (0.5, 1.5), "by hand: targets start at zero, as in PCGrad"),
        Golden(((1.0, 0.0), (1.0, 1.0)), (2.0, 1.0), "by hand: above the target, the sum"),
    )

    def __init__(self, *, beta: float = 1e-2, seed: int = 0, gramian: Source = "exact", skip_bad: bool = False) -> None:
        super().__init__(gramian=gramian, skip_bad=skip_bad)
        self.beta, self.seed = beta, seed
        self.targets = PairMemory(0.0)
        self.steps: Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def update(self, view: View) -> Update:
        """The weights of the sum of the vaccinated gradients."""
        found = directions(self.gramian_of(view), precision(view))
        num_tasks = len(found.norms)
        goals = self.targets.read(view.names)
        parts = torch.eye(num_tasks, dtype=torch.float64)
        along = found.cosines.clone()
        tasks = torch.arange(num_tasks)
        for others in random_orders(num_tasks, self.seed, int(self.steps)).T:
            length = (parts * along).sum(dim=1).clamp(min=0).sqrt()
            cosine = along[tasks, others] / length.clamp(min=1e-150)
            cosine = torch.where(length > 0, cosine, torch.zeros_like(cosine)).clamp(-1, 1)
            goal = goals[tasks, others]
            usable = (others != tasks) & found.alive & found.alive[others]
            pulled = usable & (cosine < goal)
            wanted = length * (goal * ((1 - cosine**2) / (1 - goal**2).clamp(min=1e-12)).sqrt() - cosine)
            more = torch.where(pulled, wanted, torch.zeros_like(wanted))
            parts[tasks, others] += more
            along += more.unsqueeze(1) * found.cosines[others]
            moved = ((1 - self.beta) * goal + self.beta * cosine).clamp(-_LIMIT, _LIMIT)
            goals[tasks, others] = torch.where(usable, moved, goal)
        self.targets.write(view.names, goals)
        self.steps += 1
        return Update((found.norms @ parts / found.norms).to(view.gramian))

    def reset(self) -> None:
        """Forgets the targets and starts the stream of orders again."""
        super().reset()
        self.targets.reset()
        self.steps.zero_()
