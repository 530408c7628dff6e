"""Channel scaling: each task turns the shared channels up and down."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from motet.models.blocks import ChannelScale
from motet.models.sharing._sharing import Sharing


class ChannelScaling(Sharing):
    """The shared features, each channel scaled for each task by what the row itself says.

    Nearly as small as hard sharing: for tasks that need the same features in different measure. x ⊙ W_t gelu(P_t x).

    Args:
        num_tasks: T.
        width: F, the size of the features it takes and gives.
        squash: put a sigmoid on the scales, so that channels are only turned down.

    Cost: 2 · B · T · F² multiplications.

    Source: Chen et al., M3Net: Multimodal Multi-task Learning for 3D Detection, Segmentation, and Occupancy Prediction
        in Autonomous Driving, 2025, task-oriented channel scaling and its released code.
    """

    name: ClassVar[str] = "channel_scaling"

    def __init__(self, num_tasks: int, *, width: int, squash: bool = False) -> None:
        super().__init__(num_tasks, inputs=width, width=width)
        self.scale = ChannelScale(num_tasks, width, squash=squash)

    def streams(self, features: Tensor, tasks: Sequence[int]) -> Tensor:
        """Maps (B, F) to (T, B, F)."""
        return self.scale(features, tasks)
