"""Hard sharing: every task reads the same features."""

from collections.abc import Sequence

from torch import Tensor, nn


class HardSharing(nn.Module):
    """Gives every task the shared features as they are: the baseline that other sharing modules must beat.

    Args:
        num_tasks: T.
        width: F, the size of the features it takes and gives.

    Cost: none; the result is a view.

    Source: Caruana, Multitask Learning, Machine Learning 1997.
    """

    def __init__(self, num_tasks: int, *, width: int) -> None:
        super().__init__()
        self.num_tasks = num_tasks
        self.width = width

    def forward(self, features: Tensor, tasks: Sequence[int] | None = None) -> Tensor:
        """Maps shared features (B, F) to one feature for each asked-for task, (T, B, F)."""
        count = self.num_tasks if tasks is None else len(tasks)
        return features.unsqueeze(0).expand(count, *features.shape)
