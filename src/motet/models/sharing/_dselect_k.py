"""DSelect-k: MMoE whose gates choose exactly k experts, differentiably."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor

from motet.models.blocks import DSelectRoute, Experts, Mix
from motet.models.sharing._sharing import Sharing


class DSelectK(Sharing):
    """Experts that all tasks share, of which each task comes to read exactly k.

    MMoE with an answer to "which experts does this task need": the choice is soft while it is made and exact once it is
    made, without the jumps of a top-k.

    Args:
        num_tasks: T.
        width: F, the size of the features it takes.
        num_experts: E, two or more; a power of two needs no help to keep its mass on experts that exist.
        k: experts that a task may read in the end.
        dims: sizes of an expert's layers.
        reads: `input` chooses for each row, `task` once for each task.
        auxiliary: scales of regularising losses by name; None means {"selector_entropy": 0.01}.

    Cost: that of MMoE; the experts that are not chosen are computed all the same.

    Source: Hazimeh et al., DSelect-k: Differentiable Selection in the Mixture of Experts, NeurIPS 2021, and the
        released gate: γ = 1, bits from U(-γ/100, γ/100), mixture from U(-0.05, 0.05), the reciprocal of the mass on
        experts that exist as a loss where E is no power of two. Departures: regularisers are means over rows and
        tasks; the scale of the entropy is ours, the paper tunes it.
    """

    name: ClassVar[str] = "dselect_k"

    def __init__(
        self,
        num_tasks: int,
        *,
        width: int,
        num_experts: int = 8,
        k: int = 2,
        dims: Sequence[int] = (128,),
        reads: str = "input",
        auxiliary: Mapping[str, float] | None = None,
    ) -> None:
        experts = Experts(num_experts, width, dims)
        super().__init__(num_tasks, inputs=width, width=experts.width)
        route = DSelectRoute(num_tasks, num_experts, width, k=k, reads=reads)
        scales = dict({"selector_entropy": 0.01} if auxiliary is None else auxiliary)
        if num_experts & (num_experts - 1):  # some codes stand for no expert
            scales.setdefault("reachable", 1.0)
        self.mix = Mix(experts, route, auxiliary=scales)

    def streams(self, features: Tensor, tasks: Sequence[int]) -> Tensor:
        """Maps (B, F) to (T, B, dims[-1])."""
        return self.mix(features, tasks)
