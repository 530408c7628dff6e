"""What a method promises: laws that the suite proves, and golden cases from outside our code."""

from dataclasses import dataclass

# Laws that a method may claim; `tests/balance/test_laws.py` holds a proof attempt for each, with random gradients.
LAWS = {
    "scale equivariant": "multiplying every loss by c multiplies the direction by c",
    "scale invariant": "multiplying one loss by c > 0 leaves the direction as it is",
    "mean when agreeing": "equal gradients give a direction parallel to them, of the sum's or the mean's length",
    "never ascends": "no task's loss rises to first order along the direction",
    "stationary is zero": "the direction is zero just where some convex combination of the gradients is",
    "one task is plain": "one task alone gets its own gradient",
    "duplicate is harmless": "a task given twice leaves the direction of the others' trade-off as it is",
    "zero is harmless": "a task with a zero gradient leaves the others a usable direction",
}


@dataclass(frozen=True)
class Golden:
    """A case whose answer comes from outside our code.

    Args:
        gradients: (T, P) the tasks' gradients.
        direction: (P,) the combined gradient.
        losses: (T,) the losses' values; ones when empty.
        source: how the answer was found: by hand, by a slow float64 solver, from a paper.
        tolerance: relative.
    """

    gradients: tuple[tuple[float, ...], ...]
    direction: tuple[float, ...]
    source: str
    losses: tuple[float, ...] = ()
    tolerance: float = 1e-6
