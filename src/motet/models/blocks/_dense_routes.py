"""Routes that give every expert that an output may read a weight."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from motet._errors import RequestError
from motet.models.blocks._gate import Gate
from motet.models.blocks._routes import Route, Routed


class SoftmaxRoute(Route):
    """A softmax over the experts that an output may read.

    Args:
        gate: scores the experts.
        see: (O, E) which output may read which expert; None means all.
    """

    def __init__(self, gate: Gate, see: Tensor | None = None) -> None:
        super().__init__(gate.num_outputs, gate.num_experts, see)
        self.gate = gate
        self.reads_input = gate.reads != "task"

    def forward(self, context: Tensor | None, outputs: Sequence[int] | None = None) -> Routed:
        """Weights from features (B, F) or (O, B, F)."""
        logits = self.gate(context, outputs)
        weights = self.masked(logits, outputs).softmax(dim=-1)
        return Routed(weights, weights, logits)

    def fresh(self, num_outputs: int, num_experts: int) -> "SoftmaxRoute":
        """A new softmax over all of that many experts, from a gate of the same sizes."""
        return SoftmaxRoute(self.gate.fresh(num_outputs, num_experts))


class SigmoidRoute(Route):
    """Independent yes and no for each expert: sigmoids, divided by their sum or as they are.

    Args:
        gate: scores the experts.
        see: (O, E) which output may read which expert; None means all.
        normalise: divide by the sum; without it a sigmoid of an expert that stands alone can still say no.

    Source: the skill table of Ponti et al., Combining Parameter-efficient Modules for Task-level Generalisation,
        EACL 2023, without the noise of its relaxed Bernoulli.
    """

    def __init__(self, gate: Gate, see: Tensor | None = None, *, normalise: bool = True) -> None:
        super().__init__(gate.num_outputs, gate.num_experts, see)
        self.gate = gate
        self.normalise = normalise
        self.reads_input = gate.reads != "task"

    def forward(self, context: Tensor | None, outputs: Sequence[int] | None = None) -> Routed:
        """Weights from features (B, F) or (O, B, F)."""
        logits = self.gate(context, outputs)
        open_ = self.masked(logits, outputs).sigmoid()
        shares = open_ / (open_.sum(dim=-1, keepdim=True) + 1e-12)
        return Routed(shares if self.normalise else open_, shares, logits)


class LinearRoute(Route):
    """Learned weights (O, E) without input, softmax or bias: stitches and learned residuals.

    Args:
        start: (O, E) where the weights begin; what may not be read stays zero.
        see: (O, E) which output may read which expert; None means all.
    """

    def __init__(self, start: Tensor, see: Tensor | None = None) -> None:
        super().__init__(start.shape[0], start.shape[1], see)
        self.weight = nn.Parameter(start.clone())

    def forward(self, context: Tensor | None, outputs: Sequence[int] | None = None) -> Routed:  # noqa: ARG002
        """The weights (O, 1, E)."""
        weights = (self.weight * self.see).unsqueeze(1)
        weights = weights if outputs is None else weights[list(outputs)]
        return Routed(weights, weights.abs() / weights.abs().sum(dim=-1, keepdim=True).clamp(min=1e-12))


class FixedRoute(Route):
    """Weights that are given and stay: one expert for each task, or the mean of some.

    Args:
        weights: (O, E); zero means that the output does not read the expert.
    """

    def __init__(self, weights: Tensor) -> None:
        super().__init__(weights.shape[0], weights.shape[1], weights != 0)
        self.weight: Tensor
        self.register_buffer("weight", weights.float(), persistent=False)
        self.index: Tensor | None
        even = len({len(seen) for seen in self.seen}) == 1
        self.register_buffer("index", torch.tensor(self.seen).unsqueeze(1) if even else None, persistent=False)

    @classmethod
    def own(cls, num_outputs: int) -> "FixedRoute":
        """Each output reads the expert of its own number."""
        return cls(torch.eye(num_outputs))

    @classmethod
    def mean(cls, see: Tensor) -> "FixedRoute":
        """Each output reads the mean of the experts that it may read, (O, E)."""
        return cls(see.float() / see.float().sum(dim=1, keepdim=True).clamp(min=1.0))

    def forward(self, context: Tensor | None, outputs: Sequence[int] | None = None) -> Routed:  # noqa: ARG002
        """The weights (O, 1, E)."""
        weights = self.weight.unsqueeze(1)
        weights = weights if outputs is None else weights[list(outputs)]
        if self.index is None:
            return Routed(weights, weights)
        index = self.index if outputs is None else self.index[list(outputs)]
        return Routed(weights, weights, index=index, chosen=weights.gather(-1, index))


class SumRoute(Route):
    """The sum of two routes: a gate, and what an output reads of its own experts besides.

    Args:
        gate: the route whose probabilities regularisers look at.
        beside: the route that is added.
    """

    def __init__(self, gate: Route, beside: Route) -> None:
        shapes = [(route.num_outputs, route.num_experts) for route in (gate, beside)]
        if shapes[0] != shapes[1]:
            message = (
                f"Routes of {shapes[0]} and {shapes[1]} outputs and experts were to be added; they need to be alike. "
                "Build both for the same experts."
            )
            raise RequestError(message)
        super().__init__(*shapes[0], gate.see | beside.see)
        self.gate = gate
        self.beside = beside
        self.reads_input = gate.reads_input or beside.reads_input

    def forward(self, context: Tensor | None, outputs: Sequence[int] | None = None) -> Routed:
        """Weights from features (B, F) or (O, B, F)."""
        first, second = self.gate(context, outputs), self.beside(context, outputs)
        return Routed(first.weights + second.weights, first.probabilities, first.logits, selectors=first.selectors)
