"""MultiTab-Net: each task a token, which reads the row's columns through masked attention."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from motet._errors import RequestError, suggest
from motet.models.blocks import TokenBlock
from motet.models.sharing._sharing import Sharing

MASKS = ("none", "task-task", "feature-task", "both")
TOKENS = ("task", "shared")


class MultiTabNet(Sharing):
    """A token for each task, which reads the row's columns, each a token, through attention with a mask over tasks.

    For tables where tasks read different columns, or the same ones differently. The tokens [t_1 … t_T ; x_1 … x_S] pass
    blocks of attention within their row, and what becomes of t_i is task i's feature. The mask says who may not read
    whom: `task-task` a task another task, `feature-task` a column any task, `both`, or `none`. It reads tokens: on
    tables it brings the encoder `TokenEncoder`; features (B, F) pass as a single token.

    Args:
        num_tasks: T.
        width: F, the size of a token.
        mask: `none`, `task-task`, `feature-task` or `both`.
        tokens: `task` gives each task a token of its own; `shared` has one that all heads read.
        num_blocks: blocks; in the last one only the tasks' tokens go on, since nobody reads the columns after it.
        num_heads: heads of the attention; divides the width.
        hidden: size of each block's network.
        dropout: in the blocks.

    Raises:
        RequestError: an unknown mask or kind of token, no block, or heads that do not divide the width.

    Cost: with S columns a block is B · (T + S) · (4 · F² + 2 · F · hidden + 2 · (T + S) · F) multiplications, the last
        one about T / (T + S) of that. Asked for some tasks, it leaves out the tokens that those cannot come to read.

    Source: Sinodinos et al., MultiTab: A Scalable Foundation for Multitask Learning on Tabular Data, AAAI 2026.
        Departures: no attention between the rows of a batch. In the released code it is a linear map where positions
        are rotary (each row has one key, and a softmax of one is one), and elsewhere it makes a prediction depend on
        the rows beside it; its layer, of width (T + S) · F, also lets tasks read each other past the mask. Two blocks
        in its place. Columns' tokens are piecewise linear; weights begin as torch's layers do, for N(0, 0.01); sizes
        are 32 and 128 for 16 and 256; dropout is on what is added, for on the attention's shares.
    """

    name: ClassVar[str] = "multitab-net"
    reads: ClassVar[Literal["features", "tokens"]] = "tokens"

    def __init__(
        self,
        num_tasks: int,
        *,
        width: int,
        mask: str = "task-task",
        tokens: str = "task",
        num_blocks: int = 2,
        num_heads: int = 4,
        hidden: int = 128,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(num_tasks, inputs=width, width=width)
        _check(mask, tokens, num_blocks)
        self.tasks_read_tasks = mask in {"none", "feature-task"}
        self.features_read_tasks = mask in {"none", "task-task"}
        self.num_task_tokens = num_tasks if tokens == "task" else 1
        self.task_tokens = nn.Parameter(torch.randn(self.num_task_tokens, width) * width**-0.5)
        self.blocks = nn.ModuleList(
            TokenBlock(width, num_heads=num_heads, hidden=hidden, dropout=dropout) for _ in range(num_blocks)
        )

    def streams(self, features: Tensor, tasks: Sequence[int]) -> Tensor:
        """Maps tokens (B, S, F) to (T, B, F)."""
        asked = list(dict.fromkeys(tasks)) if self.num_task_tokens > 1 else [0]
        before, *after = self._plan(asked)
        values = torch.cat([self.task_tokens[before].expand(len(features), -1, -1), features], dim=1)
        columns = list(range(features.shape[1]))
        for number, (block, kept) in enumerate(zip(self.blocks, after, strict=True)):
            rest = columns if number < len(after) - 1 else columns[:0]
            places = [before.index(task) for task in kept] + [len(before) + column for column in rest]
            allowed = self._allowed(kept, len(rest), before, len(columns), features.device)
            queries, read = (values, None) if len(places) == values.shape[1] else (values[:, places], values)
            values = block(queries, read, allowed)
            before = kept
        found = values.transpose(0, 1)
        return found[[asked.index(task) for task in tasks]] if len(asked) > 1 else found.expand(len(tasks), -1, -1)

    def _plan(self, asked: list[int]) -> list[list[int]]:
        """The tasks whose tokens are needed before the first block, and after each."""
        everyone = list(range(self.num_task_tokens))
        plan = [asked]
        for number in range(len(self.blocks)):
            by_columns = self.features_read_tasks and number > 0  # counted from the end: after the last no column is
            plan.insert(0, everyone if self.tasks_read_tasks or by_columns else plan[0])
        return plan

    def _allowed(
        self, kept: list[int], num_kept: int, before: list[int], num_columns: int, device: torch.device
    ) -> Tensor | None:
        if self.tasks_read_tasks and self.features_read_tasks:
            return None
        queries = torch.tensor(kept + [-1] * num_kept, device=device)
        keys = torch.tensor(before + [-1] * num_columns, device=device)
        return may_read(
            queries, keys, tasks_read_tasks=self.tasks_read_tasks, features_read_tasks=self.features_read_tasks
        )


def may_read(queries: Tensor, keys: Tensor, *, tasks_read_tasks: bool, features_read_tasks: bool) -> Tensor:
    """(Q, S) bool: which query token may read which token; a token always reads itself and every feature.

    Args:
        queries: (Q,) number of each query's task, -1 for a feature.
        keys: (S,) the same of what is read.
        tasks_read_tasks: whether a task's token reads the other tasks' tokens.
        features_read_tasks: whether a feature's token reads the tasks' tokens.
    """
    asks, reads = queries[:, None] >= 0, keys[None, :] >= 0
    others = asks & reads & (queries[:, None] != keys[None, :])
    allowed = torch.ones_like(others)
    if not tasks_read_tasks:
        allowed = allowed & ~others
    return allowed if features_read_tasks else allowed & ~(~asks & reads)


def _check(mask: str, tokens: str, num_blocks: int) -> None:
    for what, given, known in (("mask", mask, MASKS), ("kind of token", tokens, TOKENS)):
        if given not in known:
            message = f"The {what} '{given}' was given; {', '.join(known)} are known.{suggest(given, known)} Take one."
            raise RequestError(message)
    if num_blocks < 1:
        message = f"{num_blocks} blocks were asked for; tasks read the columns in the last one. Ask for one or more."
        raise RequestError(message)
