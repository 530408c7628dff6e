"""Routes that choose a few experts."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from motet._errors import RequestError
from motet.models.blocks._gate import Gate
from motet.models.blocks._routes import Route, Routed


class TopKRoute(Route):
    """A softmax over all experts of which the k largest count, and only those are computed.

    Args:
        gate: scores the experts.
        k: how many count.
        see: (O, E) which output may read which expert; None means all.
        renormalise: let the k weights sum to one; without it they keep what the softmax gave them, and a gate with
            k = 1 still gets a gradient.
        noise: in training each score is moved by a normal draw of this over E, so that every expert has its chance.

    Raises:
        RequestError: k is below one or above what some output may read.

    Source: Fan et al., M3ViT, NeurIPS 2022, and its code for the order softmax, then top-k, without renormalising,
        and for the size of the noise; Shazeer et al., Outrageously Large Neural Networks, ICLR 2017, for the load.
        Departure: with noise, the threshold for the load is taken on the scores, not on the probabilities.
    """

    def __init__(
        self, gate: Gate, k: int, see: Tensor | None = None, *, renormalise: bool = False, noise: float = 0.0
    ) -> None:
        super().__init__(gate.num_outputs, gate.num_experts, see)
        _check_k(k, min(len(seen) for seen in self.seen))
        self.gate = gate
        self.k = k
        self.renormalise = renormalise
        self.noise = noise
        self.reads_input = gate.reads != "task"

    def forward(self, context: Tensor | None, outputs: Sequence[int] | None = None) -> Routed:
        """Weights from features (B, F) or (O, B, F)."""
        logits = self.gate(context, outputs)
        scores, load = self.masked(logits, outputs), None
        if self.training and self.noise > 0:
            spread = self.noise / self.num_experts
            noisy = scores + spread * torch.randn_like(scores)
            load = _load(scores, noisy, self.k, spread)
            scores = noisy
        probabilities = scores.softmax(dim=-1)
        chosen, index = probabilities.topk(self.k, dim=-1)
        if self.renormalise:
            chosen = chosen / chosen.sum(dim=-1, keepdim=True)
        weights = torch.zeros_like(probabilities).scatter(-1, index, chosen)
        return Routed(weights, probabilities, logits, index, chosen, load)

    def fresh(self, num_outputs: int, num_experts: int) -> "TopKRoute":
        """A new choice of k among all of that many experts, from a gate of the same sizes."""
        gate = self.gate.fresh(num_outputs, num_experts)
        return TopKRoute(gate, self.k, renormalise=self.renormalise, noise=self.noise)


class DSelectRoute(Route):
    """Exactly k experts by a choice that is differentiable all the way: k selectors, each a product of soft bits.

    Selector s gives expert i the mass Π_j (S(z_sj) if bit j of i is set, else 1 - S(z_sj)), where S is a cubic that is
    exactly 0 below -γ/2 and exactly 1 above γ/2; the selectors are mixed by a softmax.

    Args:
        num_outputs: O.
        num_experts: E, two or more.
        inputs: size of the input that is read.
        k: how many selectors, and so how many experts in the end.
        reads: `input` chooses for each row, `task` once for each output.
        width: γ, over which a bit is undecided.

    Raises:
        RequestError: fewer than two experts, or k outside 1 to E.

    Source: Hazimeh et al., DSelect-k, NeurIPS 2021, and the released gate, also for the start: bits from
        U(-γ/100, γ/100), mixture from U(-0.05, 0.05), both with a bias.
    """

    def __init__(
        self, num_outputs: int, num_experts: int, inputs: int, *, k: int, reads: str = "input", width: float = 1.0
    ) -> None:
        super().__init__(num_outputs, num_experts)
        if num_experts < 2:
            message = f"{num_experts} expert was given to choose from; a choice needs two or more. Use a softmax route."
            raise RequestError(message)
        _check_k(k, num_experts)
        bits = math.ceil(math.log2(num_experts))
        gate = Gate(num_outputs, k * bits, inputs, reads=reads, bias=True, spread=width / 100)
        mixture = Gate(num_outputs, k, inputs, reads=reads, bias=True, spread=0.05)
        self.gate = gate
        self.mixture = mixture
        self.width = width
        self.reads_input = gate.reads != "task"
        numbers = torch.arange(num_experts).unsqueeze(1)
        self.codes: Tensor
        self.register_buffer("codes", (numbers >> torch.arange(bits).flip(0)) % 2 == 1, persistent=False)

    def forward(self, context: Tensor | None, outputs: Sequence[int] | None = None) -> Routed:
        """Weights from features (B, F) or (O, B, F)."""
        bits = self.gate(context, outputs).unflatten(-1, (-1, 1, self.codes.shape[1]))
        soft = self._step(bits)
        selectors = torch.where(self.codes, soft, 1.0 - soft).prod(dim=-1)
        mixture = self.mixture(context, outputs).softmax(dim=-1)
        weights = (mixture.unsqueeze(-1) * selectors).sum(dim=-2)
        return Routed(weights, weights, selectors=selectors)

    def _step(self, values: Tensor) -> Tensor:
        inside = values.clamp(-self.width / 2, self.width / 2) / self.width
        return -2.0 * inside**3 + 1.5 * inside + 0.5


class NestedRoute(Route):
    """Groups of experts: a few groups are chosen, and within each of them every expert counts.

    The weight of an expert is its group's weight times its share within the group; experts of one group stand side by
    side.

    Args:
        outer: chooses among the groups.
        inner: scores all experts; a softmax runs within each group.

    Raises:
        RequestError: experts that do not divide into the groups.

    Source: Quan, DMoERM: Recipes of Mixture-of-Experts for Effective Reward Modeling, 2024, outer sparse and inner
        dense. Departure: the outer choice is learned with the rest, where the paper routes by a known category.
    """

    def __init__(self, outer: TopKRoute, inner: Gate) -> None:
        super().__init__(outer.num_outputs, inner.num_experts)
        if inner.num_experts % outer.num_experts:
            message = (
                f"{inner.num_experts} experts in {outer.num_experts} groups were given; groups are of one size. "
                f"Ask for a multiple of {outer.num_experts} experts."
            )
            raise RequestError(message)
        self.outer = outer
        self.inner = inner
        self.size = inner.num_experts // outer.num_experts
        self.reads_input = True

    def forward(self, context: Tensor | None, outputs: Sequence[int] | None = None) -> Routed:
        """Weights from features (B, F) or (O, B, F)."""
        groups, logits = self.outer(context, outputs), self.inner(context, outputs)
        shares = logits.unflatten(-1, (-1, self.size)).softmax(dim=-1)
        weights = (groups.weights.unsqueeze(-1) * shares).flatten(-2)
        within = torch.arange(self.size, device=logits.device)
        index = (groups.index.unsqueeze(-1) * self.size + within).flatten(-2)
        probabilities = (groups.probabilities.unsqueeze(-1) * shares).flatten(-2)
        return Routed(weights, probabilities, logits, index, weights.gather(-1, index))


def _load(scores: Tensor, noisy: Tensor, k: int, spread: float) -> Tensor:
    """The probability, over the noise of one expert alone, that it is among the k chosen."""
    if k >= scores.shape[-1]:
        return torch.ones_like(scores)
    top = noisy.topk(k + 1, dim=-1).values
    inside = noisy > top[..., -1:]
    # An expert that is in would be put out by the (k+1)-th; one that is out must beat the k-th.
    threshold = torch.where(inside, top[..., -1:], top[..., -2:-1])
    chance = torch.special.ndtr((scores - threshold) / spread)
    return chance.masked_fill(torch.isinf(scores), 0.0)


def _check_k(k: int, most: int) -> None:
    if not 1 <= k <= most:
        message = f"The top {k} experts were asked for; some output may read {most}. Ask for 1 to {most}."
        raise RequestError(message)
