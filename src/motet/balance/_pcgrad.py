"""Projecting conflicting gradients (PCGrad)."""

from typing import ClassVar

import torch
from torch import Tensor

from motet.balance._claims import Golden
from motet.balance.engine._sketch import Source
from motet.balance.engine._update import Update
from motet.balance.engine._view import View
from motet.balance.parts._gramian_method import GramianBalancer
from motet.balance.parts._solvers import directions, precision


class PCGrad(GramianBalancer):
    """Takes out of each gradient what points against another one, one other after the other in random order.

    Choose it for a mild cure of conflicts that leaves agreeing tasks alone. After a projection an earlier conflict may
    come back: some task may still ascend; `UPGrad` rules that out.

        for i: p_i = g_i; for j ≠ i in random order: p_i ← p_i − min(0, p_i·g_j) / ‖g_j‖² g_j;   d = Σ_i p_i

    Args:
        seed: of the stream of orders.
        gramian: "exact"; or "sketch" or a `Sketch`, for an estimate from part of the rows.
        skip_bad: leave a task with a NaN or infinite loss out of the step instead of raising.

    Cost: the Gramian, and T vector operations on (T, T).

    Source: Yu et al., Gradient Surgery for Multi-Task Learning, NeurIPS 2020, algorithm 1, with the sum of the authors'
        released code. Departure: projections are made on rows of the Gramian, for all i at once, which is exact; heads
        keep their own gradient, as there.

    Example:
        >>> w = torch.zeros(2, requires_grad=True)
        >>> _ = PCGrad().backward({"a": w[0], "b": w[1] - w[0]}, shared=[w])
        >>> w.grad
        tensor([0.5000, 1.5000])
    """

    name: ClassVar[str] = "pcgrad"
    claims: ClassVar[frozenset[str]] = frozenset({
        "scale equivariant", "mean when agreeing", "one task is plain", "zero is harmless",
    })  # fmt: skip
    golden: ClassVar[tuple[Golden, ...]] = (
        Golden(((1.0, 0.0), (-1.0, 1.0)), (0.5, 1.5), "by hand: (½, ½) + (0, 1)"),
        Golden(((1.0, 0.0), (1.0, 1.0)), (2.0, 1.0), "by hand: no conflict, the sum"),
        Golden(((2.0, 0.0), (-1.0, 0.0)), (0.0, 0.0), "by hand: each is projected to zero"),
    )

    def __init__(self, *, seed: int = 0, gramian: Source = "exact", skip_bad: bool = False) -> None:
        super().__init__(gramian=gramian, skip_bad=skip_bad)
        self.seed = seed
        self.steps: Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def update(self, view: View) -> Update:
        """The weights of the sum of the projected gradients."""
        found = directions(self.gramian_of(view), precision(view))
        num_tasks = len(found.norms)
        parts = torch.eye(num_tasks, dtype=torch.float64)  # row i: the lengths along each task's unit vector in p_i
        along = found.cosines.clone()  # p_i · u_j
        tasks = torch.arange(num_tasks)
        for others in random_orders(num_tasks, self.seed, int(self.steps)).T:
            back = along[tasks, others].clamp(max=0)
            back[others == tasks] = 0
            parts[tasks, others] -= back
            along -= back.unsqueeze(1) * found.cosines[others]
        self.steps += 1
        return Update((found.norms @ parts / found.norms).to(view.gramian))

    def reset(self) -> None:
        """Starts the stream of orders again."""
        super().reset()
        self.steps.zero_()


def random_orders(num_tasks: int, seed: int, step: int) -> Tensor:
    """An order (T, T) of all tasks for each task, a function of the seed and the step alone."""
    generator = torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**31)
    return torch.rand(num_tasks, num_tasks, generator=generator).argsort(dim=1)
