"""PLE: own and shared experts, level upon level; CGC is its single level."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor

from motet.models.blocks import Experts, Gate, Levels, Mix, SoftmaxRoute
from motet.models.sharing._owners import own_and_shared, owners
from motet.models.sharing._sharing import Sharing, steps


def extraction(
    num_tasks: int,
    inputs: int,
    dims: Sequence[int],
    *,
    num_specific: int,
    num_shared: int,
    shared_output: bool,
    auxiliary: Mapping[str, float] | None,
) -> Mix:
    """One level: a task's gate over its own and the shared experts; the shared output's, if wanted, over all."""
    owner = owners(num_tasks, num_specific, num_shared)
    num_outputs = num_tasks + shared_output
    gate = Gate(num_outputs, len(owner), inputs)
    route = SoftmaxRoute(gate, own_and_shared(owner, num_tasks, num_outputs))
    return Mix(Experts(len(owner), inputs, dims), route, source=owner, auxiliary=auxiliary)


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
        self.mix = extraction(
            num_tasks, width, dims, num_specific=num_specific, num_shared=num_shared, shared_output=False,
            auxiliary=auxiliary,
        )  # fmt: skip

    def streams(self, features: Tensor, tasks: Sequence[int]) -> Tensor:
        """Maps (B, F) to (T, B, dims[-1])."""
        return self.mix(features, tasks)


class PLE(Sharing):
    """CGC level upon level: between levels each task and the shared part have a stream of their own.

    For many rows and tasks that fight. The shared stream's gate reads all experts, and the last level has none.

    Args:
        num_tasks: T.
        width: F, the size of the features it takes.
        num_specific: experts of each task and level.
        num_shared: shared experts of each level.
        levels: size of each level's experts.
        auxiliary: scales of regularising losses by name.

    Cost: the levels' experts; one task alone still needs every expert below the last level, since the shared stream
        reads them all.

    Source: Tang et al., Progressive Layered Extraction (PLE), RecSys 2020. Departure: the sizes are
        ours, for tables; with no shared experts there is no shared stream.
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
        auxiliary: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(num_tasks, inputs=width, width=steps(width, levels)[-1][1])
        last = len(levels) - 1
        self.levels = Levels([
            extraction(
                num_tasks, inputs, (outputs,), num_specific=num_specific, num_shared=num_shared,
                shared_output=number < last and num_shared > 0, auxiliary=auxiliary,
            )
            for number, (inputs, outputs) in enumerate(steps(width, levels))
        ])  # fmt: skip

    def streams(self, features: Tensor, tasks: Sequence[int]) -> Tensor:
        """Maps (B, F) to (T, B, levels[-1])."""
        return self.levels(features, tasks)
