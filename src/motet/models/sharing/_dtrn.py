"""DTRN: each task reads a row's sequences through norms that a hypernetwork makes for it, and weighs what it found."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from motet._errors import RequestError
from motet.models.blocks import SqueezeExcitation, TokenAttention
from motet.models.sharing._kinds import kinds_of, num_kinds
from motet.models.sharing._sharing import Sharing


class DTRN(Sharing):
    """One small transformer over a row's tokens that is another for each task and kind of token, and a gate on fields.

    For rows that carry sequences, such as what a user clicked and bought, of which tasks make different use. All share
    the transformer's weights; the scales and shifts of its layer norms are H([e_t ; e_b]) for task t and kind b.
    Tokens read those of their own kind; then the target reads each kind, and the fields [target ; what it read of each
    kind] are weighed for the task by a squeeze and excitation. It reads tokens: a row (B, F) is a single one.

    Args:
        num_tasks: T.
        width: F, the size of a token.
        kinds: the kind of each token, numbered from 0; None means that all are of one kind.
        target: place of the token that asks, such as the candidate item; None means that their mean asks.
        num_blocks: blocks of the transformer.
        num_heads: heads of the attention; divides the width.
        expansion: how much wider the middle of a block's network is than F.
        code: size of a task's and of a kind's code.

    Raises:
        RequestError: no block, heads that do not divide the width, kinds that leave out a number; in `forward`, another
            number of tokens than of kinds, or a target that is not there.

    Cost: B · T · S · (4 + 2 · expansion) · F² multiplications a block for S tokens, each task its own.

    Source: Liu et al., Deep Task-specific Bottom Representation Network for Multi-Task Recommendation, CIKM 2023, by
        its abstract: a hypernetwork makes an interest for each task and kind of behaviour, a SENet-like network refines
        each task's input. Departures: the hypernetwork is two layers and moves norms around one; the fields are the
        target and the interests; sizes are ours. The refined fields feed the heads; a mixture of experts above it, as
        in the paper, is not part of this file.
    """

    name: ClassVar[str] = "dtrn"
    reads: ClassVar[Literal["features", "tokens"]] = "tokens"

    def __init__(
        self,
        num_tasks: int,
        *,
        width: int,
        kinds: Sequence[int] | None = None,
        target: int | None = None,
        num_blocks: int = 1,
        num_heads: int = 4,
        expansion: float = 2.0,
        code: int = 16,
    ) -> None:
        if num_blocks < 1:
            message = f"{num_blocks} blocks were asked for; at least one is needed. Ask for one or more."
            raise RequestError(message)
        count = num_kinds(kinds)
        super().__init__(num_tasks, inputs=width, width=(1 + count) * width)
        self.num_kinds = count
        self.kinds = None if kinds is None else list(kinds)
        self.target = target
        hidden = max(1, round(width * expansion))
        self.task_codes = nn.Parameter(torch.randn(num_tasks, code) * code**-0.5)
        self.kind_codes = nn.Parameter(torch.randn(count, code) * code**-0.5)
        # For each block two norms, each a scale and a shift of F numbers.
        self.hyper = nn.Sequential(
            nn.Linear(2 * code, 4 * code), nn.ReLU(), nn.Linear(4 * code, num_blocks * 4 * width)
        )
        self.attention = nn.ModuleList(TokenAttention(width, num_heads) for _ in range(num_blocks))
        self.think = nn.ModuleList(
            nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width)) for _ in range(num_blocks)
        )
        self.ask = TokenAttention(width, num_heads)
        self.refine = SqueezeExcitation(num_tasks, self.width, reduction=2, channel=width)

    def streams(self, features: Tensor, tasks: Sequence[int]) -> Tensor:
        """Maps tokens (B, S, F) to (T, B, (1 + kinds) · F)."""
        kinds, wanted = self._kinds_of(features), list(tasks)
        same = torch.tensor(kinds, device=features.device).unsqueeze(0)
        among = None if self.num_kinds == 1 else same == same.transpose(0, 1)
        norms = self._norms(wanted)[:, kinds].unsqueeze(1)  # (T, 1, S, 4 · blocks, F)
        values = features.expand(len(wanted), *features.shape)
        for number, (attention, think) in enumerate(zip(self.attention, self.think, strict=True)):
            scale, shift, scale_after, shift_after = norms[..., 4 * number : 4 * number + 4, :].unbind(dim=-2)
            normed = _moved(values, scale, shift)
            values = values + attention(normed, normed, among)
            values = values + think(_moved(values, scale_after, shift_after))
        asks = features.mean(dim=1) if self.target is None else features[:, self.target]
        fields = self._fields(asks.expand(len(wanted), *asks.shape), values, same)
        return self.refine(fields, wanted)

    def _fields(self, asks: Tensor, values: Tensor, kinds: Tensor) -> Tensor:
        """The target (T, B, F), and what it reads of each kind of token (T, B, S, F), side by side."""
        queries = asks.unsqueeze(2).expand(-1, -1, self.num_kinds, -1)
        numbers = torch.arange(self.num_kinds, device=kinds.device).unsqueeze(1)
        read = self.ask(queries, values, None if self.num_kinds == 1 else numbers == kinds)
        return torch.cat([asks, read.flatten(2)], dim=-1)

    def _norms(self, tasks: list[int]) -> Tensor:
        """Scales and shifts of every norm for each task and kind, (T, kinds, 4 · blocks, F)."""
        tasks_TC = self.task_codes[tasks].unsqueeze(1).expand(-1, self.num_kinds, -1)
        kinds_TC = self.kind_codes.unsqueeze(0).expand(len(tasks), -1, -1)
        return self.hyper(torch.cat([tasks_TC, kinds_TC], dim=-1)).unflatten(-1, (-1, self.inputs))

    def _kinds_of(self, features: Tensor) -> list[int]:
        count = features.shape[1]
        kinds = kinds_of(self.kinds, features, self.name)
        if self.target is not None and not 0 <= self.target < count:
            message = (
                f"The token at place {self.target} was to ask; a row has {count} tokens, numbered from 0. Name one of "
                "those, or leave `target` out."
            )
            raise RequestError(message)
        return kinds


def _moved(values: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return functional.layer_norm(values, values.shape[-1:]) * (1.0 + scale) + shift
