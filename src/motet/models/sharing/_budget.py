"""Which widths to run at: the best that fit a budget, by what each cost and lost in validation."""

from collections.abc import Sequence
from dataclasses import dataclass

from motet._errors import RequestError


@dataclass(frozen=True)
class WidthCosts:
    """Multiplications a row, by the number of each width.

    Args:
        shared: (W,) of the shared part.
        own: (W, W) of one task's part, by the shared part's width and its own.
        num_tasks: T.
    """

    shared: Sequence[int]
    own: Sequence[Sequence[int]]
    num_tasks: int

    def of(self, widths: Sequence[int]) -> int:
        """All multiplications of one choice: the shared part's width, then each task's."""
        return self.shared[widths[0]] + sum(self.own[widths[0]][width] for width in widths[1:])

    @property
    def range(self) -> tuple[int, int]:
        """The least and the most that a choice may cost."""
        last = len(self.shared) - 1
        return self.of([0] * (1 + self.num_tasks)), self.of([last] * (1 + self.num_tasks))


def best_widths(
    costs: WidthCosts, harm: Sequence[Sequence[Sequence[float]]], preference: Sequence[float], budget: float
) -> list[int]:
    """The widths of the least Σ_t preference_t · harm_t that fit into a budget, the cheapest of those that tie.

    What a task loses depends on the shared width and its own alone, so that for each shared width the tasks are added
    one by one, and of what they cost and lose together only the choices that no other beats are kept. The answer is
    exact, hence monotone: whoever asks more for one task gets no more harm on it.

    Args:
        costs: of every width.
        harm: (W, W, T) what a task loses, by the shared width and its own.
        preference: (T,) how much each task counts.
        budget: multiplications a row at most.

    Returns:
        The shared part's width and each task's, by number.

    Raises:
        RequestError: not even the smallest widths fit.
    """
    found: list[tuple[int, float, list[int]]] = []
    for shared, cost in enumerate(costs.shared):
        kept = [(cost, 0.0, [shared])]
        for task, weight in enumerate(preference):
            kept = _front([
                (spent + costs.own[shared][own], value + weight * harm[shared][own][task], [*widths, own])
                for spent, value, widths in kept
                for own in range(len(costs.shared))
                if spent + costs.own[shared][own] <= budget
            ])  # fmt: skip
        found += kept
    if not found:
        least, most = costs.range
        message = (
            f"The budget {budget / most:.3g} of the full cost was given; the smallest widths cost {least / most:.3g}. "
            "Give at least that, or build the model with a smaller fraction."
        )
        raise RequestError(message)
    return min(found, key=lambda choice: (choice[1], choice[0]))[2]


def _front(choices: list[tuple[int, float, list[int]]]) -> list[tuple[int, float, list[int]]]:
    """The choices that no other beats in both cost and value, cheapest first."""
    kept: list[tuple[int, float, list[int]]] = []
    for choice in sorted(choices, key=lambda choice: choice[:2]):
        if not kept or choice[1] < kept[-1][1]:
            kept.append(choice)
    return kept
