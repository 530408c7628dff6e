"""Alternating training."""

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from motet._errors import RequestError
from motet.balance._balancer import Balancer, Update
from motet.balance._claims import Golden
from motet.balance.engine._view import View
from motet.balance.parts._per_task import PerTask


class Alternating(Balancer):
    """Trains one task, or one group of tasks, at a step.

    Choose it when tasks have data sets, modalities or resolutions of their own, so that a batch holds one of them
    anyway, or when memory holds one task's graph.

        L = Σ_{k in g(t)} L_k,   g(t) the group whose turn it is, or one drawn with probability ∝ p_g

    A turn goes to the group of the batch that has waited longest. `choose` tells the turn before the batch is made, so
    that a loop need not compute the other losses at all.

    Args:
        groups: tasks that train together, by the group's name; every other task is a group of its own.
        probabilities: relative probability of a group or task, 1 where it is not named: turns are drawn. None: turns go
            round.
        seed: of the draws.
        skip_bad: leave a task with a NaN or infinite loss out of the step instead of raising.

    Raises:
        RequestError: a probability is negative, or a task is in two groups.

    Cost: one backward pass, through all the losses that are given: those not chosen get zeros.

    Source: the alternating gradient descent of IMP, Akbari et al., Alternating Gradient Descent and Mixture-of-Experts
        for Integrated Multimodal Perception, NeurIPS 2023, there over data sets, modalities and resolutions, drawn or
        in turn. Departure: draws are a function of the seed and a saved step count, so that a resumed run goes on
        exactly.
    """

    name: ClassVar[str] = "alternating"
    claims: ClassVar[frozenset[str]] = frozenset({"scale equivariant", "mean when agreeing", "one task is plain"})
    golden: ClassVar[tuple[Golden, ...]] = (
        Golden(((2.0, 0.0), (0.0, 3.0)), (2.0, 0.0), "by hand: the first turn is the first name's"),
    )

    def __init__(
        self,
        groups: Mapping[str, Sequence[str]] | None = None,
        *,
        probabilities: Mapping[str, float] | None = None,
        seed: int = 0,
        skip_bad: bool = False,
    ) -> None:
        super().__init__(skip_bad=skip_bad)
        self.groups = None if groups is None else {group: tuple(tasks) for group, tasks in groups.items()}
        self.group_of: dict[str, str] = {}
        for group, tasks in (self.groups or {}).items():
            for task in tasks:
                if task in self.group_of:
                    message = f"Task '{task}' is in two groups, '{self.group_of[task]}' and '{group}'. Leave it in one."
                    raise RequestError(message)
                self.group_of[task] = group
        for group, chance in (probabilities or {}).items():
            if not 0 <= chance < float("inf"):
                message = f"'{group}' has a probability of {chance}; a finite number of 0 or more was expected."
                raise RequestError(message)
        self.probabilities = None if probabilities is None else dict(probabilities)
        self.seed = seed
        self.turns = PerTask()
        self.steps: Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def choose(self, tasks: Iterable[str]) -> tuple[str, ...]:
        """The tasks among these that the next step trains; asking does not use up the turn."""
        tasks = tuple(tasks)
        groups = sorted({self.group_of.get(task, task) for task in tasks})
        if not groups:
            return ()
        group = self._longest_waiting(groups) if self.probabilities is None else self._drawn(groups)
        return tuple(task for task in tasks if self.group_of.get(task, task) == group)

    def update(self, view: View) -> Update:
        """One for the tasks whose turn it is, nothing for the others."""
        chosen = self.choose(view.names)
        self.steps += 1
        self.turns.set([self.group_of.get(chosen[0], chosen[0])], self.steps.reshape(1))
        return Update(view.losses.new_tensor([float(name in chosen) for name in view.names]), heads=True)

    def reset(self) -> None:
        """Starts the turns again."""
        self.turns.reset()
        self.steps.zero_()

    def _longest_waiting(self, groups: Sequence[str]) -> str:
        return groups[int(self.turns.rows(groups, torch.tensor(0)).argmin())]

    def _drawn(self, groups: Sequence[str]) -> str:
        chances = torch.tensor([(self.probabilities or {}).get(group, 1.0) for group in groups], dtype=torch.float64)
        if not bool(chances.sum() > 0):
            chances = torch.ones_like(chances)
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + int(self.steps)) % 2**31)
        return groups[int(torch.multinomial(chances, 1, generator=generator))]
