"""Hard sharing: every task reads the same features."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from motet.models.sharing._sharing import Sharing


class HardSharing(Sharing):
    """Gives every task the shared features as they are: the baseline that other sharing modules must beat.

    Args:
        num_tasks: T.
        width: F, the size of the features it takes and gives.

    Cost: none; the result is a view.

    Source: Caruana, Multitask Learning, Machine Learning 1997.
    """

    name: ClassVar[str] = "hard"

    def __init__(self, num_tasks: int, *, width: int) -> None:
        super().__init__(num_tasks, inputs=width, width=width)

    def streams(self, features: Tensor, tasks: Sequence[int]) -> Tensor:
        """Maps (B, F) to (T, B, F)."""
        return features.unsqueeze(0).expand(len(tasks), *features.shape)
