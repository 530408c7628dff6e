"""Routes: which expert counts how much for which output."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from motet._errors import RequestError


@dataclass(frozen=True)
class Routed:
    """What a route decided.

    Args:
        weights: (O, B, E), or (O, 1, E) where all rows are alike.
        probabilities: (O, B, E) before anything was cut away; sums to one.
        logits: (O, B, E) the raw scores, if there are any.
        index: (O, B, k) the chosen experts, if there are only a few.
        chosen: (O, B, k) their weights.
        load: (O, B, E) the probability that noise lets each expert be among the chosen, if there was noise.
        selectors: (O, B, k, E) each selector's choice, of a route that has some.
        others: (O', E) mean probabilities of the outputs that are not in this pass, from the passes that they were in.
    """

    weights: Tensor
    probabilities: Tensor
    logits: Tensor | None = None
    index: Tensor | None = None
    chosen: Tensor | None = None
    load: Tensor | None = None
    selectors: Tensor | None = None
    others: Tensor | None = None


class Route(nn.Module, ABC):
    """Weights (O, B, E) of E experts for O outputs.

    Args:
        num_outputs: O.
        num_experts: E.
        see: (O, E) which output may read which expert; None means all.

    Raises:
        RequestError: no expert, a mask of another shape, or one that leaves an output without an expert.
    """

    reads_input = False

    def __init__(self, num_outputs: int, num_experts: int, see: Tensor | None = None) -> None:
        super().__init__()
        if num_experts < 1 or num_outputs < 1:
            message = (
                f"{num_experts} experts for {num_outputs} outputs were given; both are 1 or more. Ask for at least one."
            )
            raise RequestError(message)
        self.num_outputs = num_outputs
        self.num_experts = num_experts
        self.see: Tensor
        mask = (
            torch.ones(num_outputs, num_experts, dtype=torch.bool)
            if see is None
            else _mask(see, num_outputs, num_experts)
        )
        self.register_buffer("see", mask, persistent=False)
        self.sees_all = bool(mask.all())
        # Kept as plain numbers too: what a part of the outputs needs is known without asking the device.
        self.seen = [row.nonzero().flatten().tolist() for row in mask]

    @abstractmethod
    def forward(self, context: Tensor | None, outputs: Sequence[int] | None = None) -> Routed:
        """Weights from features (B, F), read for every output, or (O, B, F), of the asked-for outputs."""

    def fresh(self, num_outputs: int, num_experts: int) -> "Route":
        """A new route of the same kind over all of that many experts.

        Raises:
            RequestError: this kind of route stands for what it was given, and no other is like it.
        """
        message = (
            f"A {type(self).__name__} for {num_outputs} more outputs and {num_experts} experts was to be made; it is "
            "no choice among experts that a gate learns. Take an architecture with a softmax or a top-k route."
        )
        raise RequestError(message)

    def needs(self, outputs: Sequence[int] | None) -> list[int] | None:
        """The experts that the asked-for outputs may read; None for all."""
        if outputs is None:
            return None
        found = sorted({expert for output in outputs for expert in self.seen[output]})
        return None if len(found) == self.num_experts else found

    def masked(self, logits: Tensor, outputs: Sequence[int] | None) -> Tensor:
        """Scores with minus infinity where an output may not read."""
        if self.sees_all:
            return logits
        see = self.see if outputs is None else self.see[list(outputs)]
        return logits.masked_fill(~see.unsqueeze(1), -torch.inf)


def _mask(see: Tensor, num_outputs: int, num_experts: int) -> Tensor:
    mask = torch.as_tensor(see).bool()
    if tuple(mask.shape) != (num_outputs, num_experts):
        message = (
            f"The mask of who may read which expert has shape {tuple(mask.shape)}; {num_outputs} outputs and "
            f"{num_experts} experts need ({num_outputs}, {num_experts}). Give a row for each output."
        )
        raise RequestError(message)
    blind = (~mask.any(dim=1)).nonzero().flatten().tolist()
    if blind:
        message = (
            f"The mask leaves output {blind[0]} without an expert; every output reads at least one. "
            "Allow it one, or leave the output out."
        )
        raise RequestError(message)
    return mask
