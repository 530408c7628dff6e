"""MMoE: shared experts, a gate for each task."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor

from motet.models.blocks import Experts, Gate, Mix, SoftmaxRoute
from motet.models.sharing._sharing import Sharing


class MMoE(Sharing):
    """Experts that all tasks share, mixed by a gate of each task's own.

    The first thing to try after hard sharing: tasks that disagree weigh the experts differently, and nothing has to be
    known of how they are related. y_t = Σ_e softmax(W_t x)_e u_e(x).

    Args:
        num_tasks: T.
        width: F, the size of the features it takes.
        num_experts: E.
        dims: sizes of an expert's layers.
        gate_hidden: sizes of the gates' hidden layers.
        auxiliary: scales of regularising losses by name, such as {"importance": 0.01}.

    Cost: B · E · Σ in · out multiplications, whatever the number of tasks, and B · T · E · (F + last) for the gates.

    Source: Ma et al., Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts, KDD 2018.
        Departure: the sizes are ours, for tables.
    """

    name: ClassVar[str] = "mmoe"
    extends: ClassVar[bool] = True

    def __init__(
        self,
        num_tasks: int,
        *,
        width: int,
        num_experts: int = 8,
        dims: Sequence[int] = (128,),
        gate_hidden: Sequence[int] = (),
        auxiliary: Mapping[str, float] | None = None,
    ) -> None:
        experts = Experts(num_experts, width, dims)
        super().__init__(num_tasks, inputs=width, width=experts.width)
        gate = Gate(num_tasks, num_experts, width, hidden=gate_hidden)
        self.mix = Mix(experts, SoftmaxRoute(gate), auxiliary=auxiliary)

    def streams(self, features: Tensor, tasks: Sequence[int]) -> Tensor:
        """Maps (B, F) to (T, B, dims[-1])."""
        return self.mix(features, tasks)
