"""PLE: own and shared experts, level upon level; CGC is its single level."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor

from motet._errors import RequestError, suggest
from motet.models.blocks import Experts, Gate, Mix, Route, SoftmaxRoute
from motet.models.sharing._owners import columns, own_and_shared, owners
from motet.models.sharing._sharing import Sharing, steps

READS = ("all", "shared")


class CGC(Sharing):
    """Some experts for each task alone, some for all, and a gate for each task over its own and the shared ones.

    For tasks that share something and fight over the rest. One task needs its own experts and the shared ones only.

    Args:
        num_tasks: T.
        width: F, the size of the features it takes.
        num_specific: experts of each task.
        num_shared: experts that all tasks read.
        dims: sizes of an expert's layers.
        auxiliary: scales of regularising losses by name.

    Cost: B · (T · num_specific + num_shared) · Σ in · out multiplications.

    Source: Tang et al., Progressive Layered Extraction (PLE), RecSys 2020, customized gate control. Departure: the
        sizes are ours, for tables.
    """

    name: ClassVar[str] = "cgc"

    def __init__(
        self,
        num_tasks: int,
        *,
        width: int,
        num_specific: int = 2,
        num_shared: int = 2,
        dims: Sequence[int] = (128,),
        auxiliary: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(num_tasks, inputs=width, width=dims[-1] if dims else 0)
        owner = owners(num_tasks, num_specific, num_shared)
        route = SoftmaxRoute(Gate(num_tasks, len(owner), width), own_and_shared(owner, num_tasks, num_tasks))
        self.mix = Mix(Experts(len(owner), width, dims), route, source=owner, auxiliary=auxiliary)

    def streams(self, features: Tensor, tasks: Sequence[int]) -> Tensor:
        """Maps (B, F) to (T, B, dims[-1])."""
        return self.mix(features, tasks)


class PLE(Sharing):
    """CGC level upon level: between levels each task and the shared part have a stream of their own.

    For many rows and tasks that fight. The shared stream's gate reads all experts, and the last level has none. Where
    a model is mostly asked for one task, `shared_reads="shared"` lets that gate read the shared experts alone.

    Args:
        num_tasks: T.
        width: F, the size of the features it takes.
        num_specific: experts of each task and level.
        num_shared: shared experts of each level.
        levels: size of each level's experts.
        shared_reads: what the shared stream reads, `all` experts or the `shared` ones.
        auxiliary: scales of regularising losses by name.

    Raises:
        RequestError: no level, no expert that a task may read, or another `shared_reads`.

    Cost: the levels' experts; one task alone still needs every expert below the last level, since the shared stream
        reads them all. With `shared_reads="shared"` it needs its own and the shared ones on every level.

    Source: Tang et al., Progressive Layered Extraction (PLE), RecSys 2020. Departure: the sizes are
        ours, for tables; with no shared experts there is no shared stream; `shared_reads="shared"` is not the paper's.
    """

    name: ClassVar[str] = "ple"

    def __init__(
        self,
        num_tasks: int,
        *,
        width: int,
        num_specific: int = 2,
        num_shared: int = 2,
        levels: Sequence[int] = (128, 128),
        shared_reads: str = "all",
        auxiliary: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(num_tasks, inputs=width, width=steps(width, levels)[-1][1])
        if shared_reads not in READS:
            hint = suggest(shared_reads, READS)
            message = f"The shared stream is to read '{shared_reads}'; it reads all experts or the shared ones.{hint}"
            raise RequestError(message)

        def route(inputs: int, owner: list[int], num_outputs: int) -> Route:
            see = own_and_shared(owner, num_tasks, num_outputs)
            see[num_tasks:] |= shared_reads == "all"
            return SoftmaxRoute(Gate(num_outputs, len(owner), inputs), see)

        self.levels = columns(
            num_tasks, width, levels, num_specific=num_specific, num_shared=num_shared, route=route,
            auxiliary=auxiliary,
        )  # fmt: skip

    def streams(self, features: Tensor, tasks: Sequence[int]) -> Tensor:
        """Maps (B, F) to (T, B, levels[-1])."""
        return self.levels(features, tasks)
