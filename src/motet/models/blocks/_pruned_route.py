"""A route of whose experts some are gone."""

from collections.abc import Sequence

import torch
from torch import Tensor

from motet._errors import RequestError
from motet.models.blocks._routes import Route, Routed


class PrunedRoute(Route):
    """What another route decides over all experts, with those left out that an output does not read any more.

    The weights of the rest stay what they were: where an output gave the dropped experts nothing, nothing changes.

    Args:
        inner: the route over E experts.
        kept: (O, E) which output still reads which expert; experts that nobody reads have no place any more.

    Attributes:
        experts: the numbers that the remaining experts had.
    """

    def __init__(self, inner: Route, kept: Tensor) -> None:
        experts = kept.any(dim=0).nonzero().flatten().tolist()
        super().__init__(inner.num_outputs, len(experts), kept[:, experts])
        self.inner = inner
        self.experts = experts
        self.reads_input = inner.reads_input
        self.kept: Tensor
        self.places: Tensor
        self.register_buffer("kept", kept.clone(), persistent=False)
        self.register_buffer("places", (kept.any(dim=0).long().cumsum(0) - 1).clamp(min=0), persistent=False)

    def forward(self, context: Tensor | None, outputs: Sequence[int] | None = None) -> Routed:
        """Weights from features (B, F) or (O, B, F)."""
        routed = self.inner(context, outputs)
        see, kept = (part if outputs is None else part[list(outputs)] for part in (self.see, self.kept))
        index, chosen = routed.index, routed.chosen
        if index is not None and chosen is not None:
            open_ = kept.unsqueeze(1).expand(-1, index.shape[1], -1).gather(-1, index)
            index, chosen = self.places[index], chosen * open_
        return Routed(
            routed.weights[..., self.experts] * see.unsqueeze(1),
            routed.probabilities[..., self.experts],
            None if routed.logits is None else routed.logits[..., self.experts],
            index,
            chosen,
            None if routed.load is None else routed.load[..., self.experts],
            routed.selectors,
        )

    def fresh(self, num_outputs: int, num_experts: int) -> Route:
        """A new route of the inner one's kind over all of that many experts."""
        return self.inner.fresh(num_outputs, num_experts)


def checked_kept(kept: Sequence[Sequence[int]], route: Route) -> Tensor:
    """(O, E) from the numbers of the experts that each output keeps.

    Raises:
        RequestError: not one list an output, an output without an expert, or one that it may not read.
    """
    mask = torch.zeros(route.num_outputs, route.num_experts, dtype=torch.bool)
    fits = len(kept) == route.num_outputs and all(
        numbers and set(numbers) <= set(seen) for numbers, seen in zip(kept, route.seen, strict=True)
    )
    if not fits:
        message = (
            f"Experts {[list(numbers) for numbers in kept][:4]} were to be kept; {route.num_outputs} outputs need a "
            f"list each of one or more experts that they read: {route.seen[:4]}. Take the lists that `prune` reports."
        )
        raise RequestError(message)
    for row, numbers in zip(mask, kept, strict=True):
        row[list(numbers)] = True
    return mask
