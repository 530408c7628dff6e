"""Task-gated sparse experts, M3ViT's blocks: with attention between tokens, or for rows without."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor, nn

from motet._errors import RequestError
from motet.models.blocks import Experts, Gate, Mix, TokenAttention, TopKRoute
from motet.models.sharing._sharing import Sharing


class TaskGated(Sharing):
    """Blocks in which each task sends each of its rows or tokens to k of many experts; the others cost nothing.

    For large models that answer one task at a time: a task pays for its own k experts a block. Blocks are residual,
    x_t + Σ over the k largest of softmax(W_t x_t) of FFN_e(norm(x_t)), with a dense shared FFN before each. With
    `num_heads` they are transformer blocks: x + attention(norm(x)) over a row's tokens comes before each FFN, and a
    task's feature is the mean over its tokens.

    Args:
        num_tasks: T.
        width: F, the size of the features it takes and gives.
        num_experts: E.
        k: experts that a row is sent to.
        num_blocks: how many pairs of a dense and a sparse FFN.
        expansion: how much wider the middle of an FFN is than F.
        num_heads: of the attention; 0 for none, so that tokens do not see each other.
        renormalise: let the k weights sum to one.
        noise: moves the scores in training by a normal draw of this over E.
        auxiliary: scales of regularising losses by name; None means {"importance": 0.01}.

    Cost: a block is B · T · (k + 1) · 2 · expansion · F² multiplications a token; the first dense one is shared. With
        attention 8 · F² more a token, and 4 · S · F for S tokens.

    Source: Fan et al., M3ViT, NeurIPS 2022, and its code: a router for each task without bias, softmax over all, then
        top 4 of 16 without renormalising, CV² of the importance at 0.01. Departures: attention only where it is asked
        for; the load's CV² is added on demand, {"load": 0.01} with noise above zero.
    """

    name: ClassVar[str] = "task_gated"
    extends: ClassVar[bool] = True

    def __init__(
        self,
        num_tasks: int,
        *,
        width: int,
        num_experts: int = 16,
        k: int = 4,
        num_blocks: int = 1,
        expansion: float = 1.0,
        num_heads: int = 0,
        renormalise: bool = False,
        noise: float = 0.0,
        auxiliary: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(num_tasks, inputs=width, width=width)
        if num_blocks < 1:
            message = f"{num_blocks} blocks were asked for; at least one is needed. Ask for one or more."
            raise RequestError(message)
        hidden = max(1, round(width * expansion))
        scales = {"importance": 0.01} if auxiliary is None else auxiliary
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * num_blocks))
        self.dense = nn.ModuleList(
            nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width)) for _ in range(num_blocks)
        )
        self.sparse = nn.ModuleList(
            Mix(
                Experts(num_experts, width, (hidden, width), activation="gelu", last=False),
                TopKRoute(Gate(num_tasks, num_experts, width), k, renormalise=renormalise, noise=noise),
                auxiliary=scales,
            )
            for _ in range(num_blocks)
        )
        self.tokens_meet = num_heads > 0
        attended = 2 * num_blocks if num_heads else 0
        self.attend_norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(attended))
        self.attend = nn.ModuleList(TokenAttention(width, num_heads) for _ in range(attended))

    def streams(self, features: Tensor, tasks: Sequence[int]) -> Tensor:
        """Maps (B, F), or with heads tokens (B, S, F), to (T, B, F)."""
        values = features
        for number, (dense, sparse) in enumerate(zip(self.dense, self.sparse, strict=True)):
            values = self._attended(2 * number, values)
            values = values + dense(self.norms[2 * number](values))
            values = self._attended(2 * number + 1, values)
            rows = self.norms[2 * number + 1](values)
            sent = sparse(rows.flatten(-3, -2) if self.tokens_meet else rows, tasks)
            values = values + (sent.unflatten(1, features.shape[:2]) if self.tokens_meet else sent)
        return values.mean(dim=2) if self.tokens_meet else values

    def _attended(self, number: int, values: Tensor) -> Tensor:
        if not self.tokens_meet:
            return values
        read = self.attend_norms[number](values)
        return values + self.attend[number](read, read)
