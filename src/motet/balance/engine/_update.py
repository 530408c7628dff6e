"""What a method decides, and what a step then did."""

from dataclasses import dataclass

from torch import Tensor

from motet.balance.engine._conflict import cosines


@dataclass(frozen=True)
class Update:
    """What a method decides.

    Args:
        weights: (T,) the shared gradient is the sum of the tasks' gradients under these weights.
        direction: (P,) the shared gradient itself, in the place of weights.
        heads: whether the tasks' own parameters get the gradient of the weighted loss, or of each task's own; or (T,)
            weights of their own.
    """

    weights: Tensor | None = None
    direction: Tensor | None = None
    heads: bool | Tensor = False


@dataclass(frozen=True)
class Step:
    """What one balanced backward did.

    Args:
        weights: the weight that each task's loss got; empty where the method works by coordinates.
        skipped: tasks that were left out of this step: those whose loss was not finite; all, where a scaler's scale was
            too high.
        gramian: inner products (T, T) of the tasks' gradients, if they were formed.
        tasks: the tasks of the Gramian's rows.
        ready: whether `.grad` holds an update; False while gradients are still being accumulated.
        source: how the Gramian was found: "exact", from how many rows it was estimated, or why it was not.
    """

    weights: dict[str, float]
    skipped: tuple[str, ...] = ()
    gramian: Tensor | None = None
    tasks: tuple[str, ...] = ()
    ready: bool = True
    source: str = "exact"

    @property
    def conflicts(self) -> list[tuple[str, str, float]]:
        """Pairs of tasks whose gradients point apart, with their cosine, the worst first."""
        if self.gramian is None:
            return []
        matrix = cosines(self.gramian)
        pairs = [(self.tasks[i], self.tasks[j], float(matrix[i, j])) for i in range(len(self.tasks)) for j in range(i)]
        return sorted((pair for pair in pairs if pair[2] < 0), key=lambda pair: pair[2])
