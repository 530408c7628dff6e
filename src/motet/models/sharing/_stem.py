"""STEM: what a task learns of its own stays its own; the others may read it, not write it."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor

from motet.models.blocks import Experts, Gate, Mix, SoftmaxRoute, StackedLinear
from motet.models.sharing._owners import own_and_shared, owners
from motet.models.sharing._sharing import Sharing


class STEM(Sharing):
    """A view of the features and experts for each task, and shared ones; all tasks read all, each writes only its own.

    For tasks that disagree about the features themselves. Task t's gate reads x_t + x_shared; another task's experts
    enter as they are but get no gradient from t, the shared ones do.

    Args:
        num_tasks: T.
        width: F, the size of the features it takes.
        num_specific: experts of each task.
        num_shared: experts of the shared view.
        dims: sizes of an expert's layers; the last has no activation.
        gate_hidden: sizes of the gates' hidden layers.
        view: size of each view; None means F.
        auxiliary: scales of regularising losses by name.

    Cost: B · ((T + 1) · F · view + (T · num_specific + num_shared) · Σ in · out) multiplications, for one task as well.

    Source: Su et al., STEM: Unleashing the Power of Embeddings for Multi-task Recommendation, AAAI 2024, and its
        released code. Departures: the T + 1 embedding tables are T + 1 linear views of the encoder's features, since a
        sharing module begins above the encoder, so that tables proper are still shared; one level; sizes are ours.
    """

    name: ClassVar[str] = "stem"

    def __init__(
        self,
        num_tasks: int,
        *,
        width: int,
        num_specific: int = 1,
        num_shared: int = 2,
        dims: Sequence[int] = (128,),
        gate_hidden: Sequence[int] = (64,),
        view: int | None = None,
        auxiliary: Mapping[str, float] | None = None,
    ) -> None:
        size = width if view is None else view
        owner = owners(num_tasks, num_specific, num_shared)
        experts = Experts(len(owner), size, dims, last=False)
        super().__init__(num_tasks, inputs=width, width=experts.width)
        self.views = StackedLinear(num_tasks + 1, width, size)
        route = SoftmaxRoute(Gate(num_tasks, len(owner), size, hidden=gate_hidden, bias=True))
        live = own_and_shared(owner, num_tasks, num_tasks)
        self.mix = Mix(experts, route, source=owner, live=live, auxiliary=auxiliary)

    def streams(self, features: Tensor, tasks: Sequence[int]) -> Tensor:
        """Maps (B, F) to (T, B, dims[-1])."""
        views = self.views(features)
        return self.mix(views, tasks, context=views[list(tasks)] + views[-1:])
