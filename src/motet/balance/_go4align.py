"""Group optimisation for multi-task alignment (GO4Align)."""

from typing import ClassVar

import torch
from torch import Tensor

from motet._errors import RequestError
from motet.balance._balancer import Balancer, Update
from motet.balance._claims import Golden
from motet.balance.engine._view import View
from motet.balance.parts._per_task import PerTask


class Go4Align(Balancer):
    """Brings losses to one scale, favours tasks whose risk has been low, and gives like tasks one weight.

    Choose it for many tasks with losses of different sizes at the cost of a plain step: weights that are common to a
    group are calmer than one weight a task.

        q_k ∝ q_k e^(−η L_k),   v_k = q_k Σ_j L_j / L_k,   w_k = the mean of v over k's group;   L = Σ_k w_k L_k
        groups: the exact k-means of v

    Args:
        num_groups: how many weights there are, at least 1; one group is a plain sum with a varying factor.
        rate: η, how fast past risk tells.
        skip_bad: leave a task with a NaN or infinite loss out of the step instead of raising.

    Cost: one backward pass, and T numbers of state.

    Source: Shen et al., GO4Align: Group Optimization for Multi-Task Alignment, NeurIPS 2024, after its released code,
        η = 1e-4; losses are expected to be positive. Departures: two groups where its parser says one, which would not
        tell tasks apart; k-means on a line is solved exactly by dynamic programming, and is not drawn at random.
    """

    name: ClassVar[str] = "go4align"
    claims: ClassVar[frozenset[str]] = frozenset({"one task is plain"})
    golden: ClassVar[tuple[Golden, ...]] = (
        Golden(
            ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
            (5 / 6, 5 / 6, 5 / 3),
            "by hand: q = 1/3 up to 1e-4, v = (5/6, 5/6, 5/3) for losses (2, 2, 1), in two groups",
            losses=(2.0, 2.0, 1.0),
            tolerance=2e-4,
        ),
    )

    def __init__(self, *, num_groups: int = 2, rate: float = 1e-4, skip_bad: bool = False) -> None:
        super().__init__(skip_bad=skip_bad)
        if num_groups < 1:
            message = f"Go4Align got num_groups={num_groups}; at least 1 was expected."
            raise RequestError(message)
        self.num_groups, self.rate = num_groups, rate
        self.log_shares = PerTask()

    def update(self, view: View) -> Update:
        """The weights of the tasks' groups."""
        losses = view.losses.cpu().clamp(min=1e-12)
        before = self.log_shares.rows(view.names, losses.new_zeros(()))
        after = before - self.rate * losses
        # The tasks at hand share what they had together: one that was away keeps its share, a new one gets an even one.
        self.log_shares.set(view.names, after + before.logsumexp(0) - after.logsumexp(0))
        weights = torch.softmax(after, dim=0) * losses.sum() / losses
        return Update(_grouped(weights, self.num_groups).to(view.losses), heads=True)

    def reset(self) -> None:
        """Forgets past risk."""
        self.log_shares.reset()


def _grouped(values: Tensor, num_groups: int) -> Tensor:
    """Each value's mean over its group, for the groups of least squared distance: on a line they are intervals."""
    ordered, order = values.sort()
    size = len(values)
    sums = torch.cat([ordered.new_zeros(1), ordered.cumsum(0)])
    squares = torch.cat([ordered.new_zeros(1), ordered.square().cumsum(0)])
    start, end = torch.arange(size).unsqueeze(1), torch.arange(1, size + 1).unsqueeze(0)
    spread = (squares[end] - squares[start]) - (sums[end] - sums[start]) ** 2 / (end - start).clamp(min=1)
    spread = torch.where(end > start, spread.clamp(min=0), torch.inf)
    cuts: list[Tensor] = []
    cost = spread[0]
    for _ in range(min(num_groups, size) - 1):
        # The last interval starts where the cost of what comes before it and its own are least together.
        before = torch.cat([cost.new_full((1,), torch.inf), cost[:-1]])
        cost, cut = (before.unsqueeze(1) + spread).min(dim=0)
        cuts.append(cut)
    found = torch.empty_like(values)
    last = size
    for cut in reversed(cuts):
        first = int(cut[last - 1])
        found[order[first:last]] = ordered[first:last].mean()
        last = first
    found[order[:last]] = ordered[:last].mean()
    return found
