"""M3Net: every modality says which fused channels count, and each task scales them once more."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from torch import Tensor

from motet.models.blocks import ChannelScale, StackedLinear
from motet.models.sharing._kinds import kinds_of, mean_of_kinds, num_kinds
from motet.models.sharing._sharing import Sharing


class M3Net(Sharing):
    """Modalities fused to one feature, whose channels each modality turns up or down, and then each task.

    For inputs of several modalities, each of which is good at some of the tasks: above `Modalities`, with
    `kinds=range(M)` where each gives one token. With x_m the mean of modality m's tokens,

        z = relu(Σ_m W_m x_m),   y = z ⊙ Σ_m σ(A_m relu(C_m x_m)),   y_t = y ⊙ S_t gelu(P_t y).

    It reads tokens: a row (B, F) is a single one.

    Args:
        num_tasks: T.
        width: F, the size of a token and of the features it gives.
        kinds: the modality of each token, numbered from 0; None means that all are of one.
        squash: put a sigmoid on the tasks' scales, so that channels are only turned down.

    Raises:
        RequestError: kinds that leave out a number; in `forward`, another number of tokens than of kinds.

    Cost: 3 · B · M · F² multiplications once, and 2 · B · F² a task.

    Source: Chen et al., M3Net: Multimodal Multi-task Learning for 3D Detection, Segmentation, and Occupancy Prediction
        in Autonomous Driving, 2025, modality-adaptive feature integration and task-oriented channel scaling, and its
        released code for both forms. Departures: any number of modalities; linear layers without a batch norm in the
        place of convolutions over a map, and so a row's own features in the place of their mean over it; scales act
        on the fused feature in the place of a decoder's queries.
    """

    name: ClassVar[str] = "m3net"
    reads: ClassVar[Literal["features", "tokens"]] = "tokens"

    def __init__(self, num_tasks: int, *, width: int, kinds: Sequence[int] | None = None, squash: bool = False) -> None:
        super().__init__(num_tasks, inputs=width, width=width)
        self.num_kinds = num_kinds(kinds)
        self.kinds = None if kinds is None else list(kinds)
        self.fuse = StackedLinear(self.num_kinds, width, width)
        self.alone = StackedLinear(self.num_kinds, width, width)
        self.attend = StackedLinear(self.num_kinds, width, width)
        self.scale = ChannelScale(num_tasks, width, squash=squash)

    def streams(self, features: Tensor, tasks: Sequence[int]) -> Tensor:
        """Maps tokens (B, S, F) to (T, B, F)."""
        single = mean_of_kinds(kinds_of(self.kinds, features, self.name), features, self.num_kinds)
        fused = self.fuse(single).sum(dim=0).relu()
        opened = self.attend(self.alone(single).relu()).sigmoid().sum(dim=0)
        return self.scale(fused * opened, tasks)
