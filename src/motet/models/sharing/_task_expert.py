"""TaskExpert: experts on each level of a network, gated by task, and a memory that each task carries along."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from motet.models.blocks import Experts, Gate, SoftmaxRoute, StackedLinear
from motet.models.blocks._mix import weigh
from motet.models.sharing._sharing import Sharing, steps


class TaskExpert(Sharing):
    """A shared network whose levels feed experts; each task mixes them with a memory, and writes back what it read.

    For deep encoders whose levels serve tasks differently: a task takes what it needs where it lies, and does not lose
    it on the way up. On level l, with features x_l and o the shares of softmax(W_t x_l) over N experts and the memory,

        o_t = Σ_n s_tn u_n(x_l) + s_tm m_t,        m_t ← m_t + σ(U_t [m_t ; o_t]) ⊙ (o_t - m_t),

    and the memory after the last level is the task's feature. It begins as a vector of the task's own.

    Args:
        num_tasks: T.
        width: F, the size of the features it takes.
        levels: sizes of the shared network's levels.
        num_experts: N, experts of each level.
        memory: F', the size of the memory.

    Raises:
        RequestError: no level, or no expert.

    Cost: B · Σ over levels of (in · out + N · out · memory) multiplications, and 2 · B · memory² a level and task.

    Source: Ye and Xu, TaskExpert: Dynamically Assembling Multi-Task Representations with Memorial Mixture-of-Experts,
        ICCV 2023, by its abstract; its code was never released. Departures: how the memory is written is ours; experts
        are linear with a ReLU in the place of convolutions; a row's own features are the gates' context in the place
        of a mean over an image; the backbone is a plain network above the encoder, which hands out no levels.
    """

    name: ClassVar[str] = "task_expert"

    def __init__(
        self,
        num_tasks: int,
        *,
        width: int,
        levels: Sequence[int] = (128, 128),
        num_experts: int = 4,
        memory: int = 128,
    ) -> None:
        pairs = steps(width, levels)
        super().__init__(num_tasks, inputs=width, width=memory)
        self.shared = nn.ModuleList(nn.Linear(inputs, outputs) for inputs, outputs in pairs)
        self.experts = nn.ModuleList(Experts(num_experts, outputs, (memory,)) for _, outputs in pairs)
        self.routes = nn.ModuleList(SoftmaxRoute(Gate(num_tasks, num_experts + 1, outputs)) for _, outputs in pairs)
        self.write = nn.ModuleList(StackedLinear(num_tasks, 2 * memory, memory) for _ in pairs)
        self.start = nn.Parameter(0.02 * torch.randn(num_tasks, 1, memory))

    def streams(self, features: Tensor, tasks: Sequence[int]) -> Tensor:
        """Maps (B, F) to (T, B, memory)."""
        wanted = list(tasks)
        values, memory = features, self.start[wanted].expand(-1, len(features), -1)
        for shared, experts, route, write in zip(self.shared, self.experts, self.routes, self.write, strict=True):
            values = shared(values).relu()
            shares = route(values, wanted).weights
            read = weigh(shares[..., :-1], experts(values)) + shares[..., -1:] * memory
            memory = memory + write(torch.cat([memory, read], dim=-1), wanted).sigmoid() * (read - memory)
        return memory
