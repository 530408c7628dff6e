"""Task indicator: the shared features, re-weighed, through a mask that each task's code opens."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from motet.models.blocks import Gate, SqueezeExcitation
from motet.models.sharing._sharing import Sharing


class TaskIndicator(Sharing):
    """The shared features, re-weighed by a squeeze and excitation, each task reading them through a mask of its own.

    For many tasks: they share all weights but a code of `hidden` numbers each. With h = SE(x), the feature of task t is
    σ(V relu(U h + q_t)) ⊙ h.

    Args:
        num_tasks: T.
        width: F, the size of the features it takes and gives.
        hidden: size of the selector's middle, and of a task's code.
        reduction: how much narrower the middle of the squeeze is.

    Cost: B · T · hidden · F multiplications, and B · F · (hidden + 2 · F / reduction) once.

    Source: after the abstract of APEM's pattern selector: a task-indicator vector selects patterns of shared
        interactions. No equation or code could be read, so the form of the mask is ours. `APEM` has it above set
        attention over a row's fields.
    """

    name: ClassVar[str] = "task_indicator"

    def __init__(self, num_tasks: int, *, width: int, hidden: int = 64, reduction: int = 4) -> None:
        super().__init__(num_tasks, inputs=width, width=width)
        self.excite = SqueezeExcitation(1, width, reduction=reduction)
        self.select = Gate(num_tasks, width, width, reads="both", hidden=(hidden,))

    def streams(self, features: Tensor, tasks: Sequence[int]) -> Tensor:
        """Maps (B, F) to (T, B, F)."""
        excited = self.excite(features)[0]
        return self.select(excited, tasks).sigmoid() * excited
