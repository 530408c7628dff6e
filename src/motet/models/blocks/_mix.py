"""Mix: experts under a route, streams to streams."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from motet._errors import RequestError
from motet.models.blocks._auxiliary import AUXILIARY, check_auxiliary
from motet.models.blocks._experts import Experts
from motet.models.blocks._groups import gather, group
from motet.models.blocks._joined import JoinedExperts
from motet.models.blocks._routes import Route, Routed
from motet.models.blocks._stacked import pick

FORGET = 0.1  # what a pass counts in what an output is wont to read
WORTH = 32_000_000  # multiplications that sorting rows by expert must save to be worth its fixed time


class Mix(nn.Module):
    """Each output the weighted sum of experts, y_o = Σ_e w_oe u_e: one level of nearly every sharing architecture.

    What the experts read depends on the shape of the inputs and on `source`: (B, F) is read by all; of streams
    (S, B, F) expert e reads stream source[e], and the gate of output o reads stream o; without `source` each output
    sends its own stream to the experts that it weighs. Only experts that an asked-for output may read are computed,
    and of a route that chooses k experts only the chosen ones, as soon as that is the cheaper way.

    Args:
        experts: E of them.
        route: weights for O outputs.
        source: the stream that each expert reads.
        live: (O, E) whose gradient passes from which output into which expert; None means all.
        auxiliary: scales of regularising losses by name, kept in `auxiliary` after each forward pass in training.

    Raises:
        RequestError: experts and route, or the source, do not fit together; in `forward`, weights that are not finite.

    Cost: the needed experts, and B · O · E · width multiplications for the sum.
    """

    def __init__(
        self,
        experts: Experts | JoinedExperts,
        route: Route,
        *,
        source: Sequence[int] | None = None,
        live: Tensor | None = None,
        auxiliary: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        _check(experts, route, source, live)
        self.experts = experts
        self.route = route
        self.source = None if source is None else list(source)
        self.scales = check_auxiliary(auxiliary or {})
        self.auxiliary: dict[str, Tensor] = {}
        self.live: Tensor | None
        self.register_buffer("live", None if live is None or bool(live.all()) else live.bool(), persistent=False)
        self.habits: Tensor | None
        known = torch.full((route.num_outputs, route.num_experts), 1.0 / route.num_experts)
        self.register_buffer("habits", known if "mutual_information" in self.scales else None, persistent=False)

    def __getstate__(self) -> dict[str, Any]:
        # The last pass's losses hang on a graph, and a graph can be neither copied nor pickled.
        return self.__dict__ | {"auxiliary": {}}

    def forward(
        self,
        inputs: Tensor,
        outputs: Sequence[int] | None = None,
        *,
        streams: Sequence[int] | None = None,
        context: Tensor | None = None,
    ) -> Tensor:
        """Maps (B, F) or streams (S, B, F) to (O, B, width).

        Args:
            inputs: what the experts read.
            outputs: numbers of the asked-for outputs; None for all.
            streams: the numbers of the streams in `inputs`; None for all in order.
            context: what the gates read, (B, F') or (O, B, F'); None for what the experts read.
        """
        if outputs is not None and list(outputs) == list(range(self.route.num_outputs)):
            outputs = None  # all in order: nothing to pick, forward or backward
        places = None if streams is None else {number: place for place, number in enumerate(streams)}
        if context is None and self.route.reads_input:
            context = self._contexts(inputs, outputs, places)
        routed = self.route(context, outputs)
        self._note(routed, outputs)
        if self.source is None and inputs.ndim == 3:
            return self._own_streams(inputs, routed, outputs)
        chosen = self.route.needs(outputs)
        if (
            inputs.ndim == 2
            and routed.index is not None
            and self._few(routed.index, chosen, len(routed.index), len(inputs))
        ):
            return self._sent(inputs, routed)
        values = self.experts(self._fed(inputs, chosen, places), chosen)
        weights = routed.weights if chosen is None else routed.weights[..., chosen]
        if self.live is None or not values.requires_grad:
            return weigh(weights, values)
        live = self.live if outputs is None else self.live[list(outputs)]
        open_ = (live if chosen is None else live[:, chosen]).unsqueeze(1)
        return weigh(weights * open_, values) + weigh(weights * ~open_, values.detach())

    def reads(self, outputs: Sequence[int]) -> list[int]:
        """The streams that the asked-for outputs need."""
        found = set(outputs) if self.route.reads_input or self.source is None else set()
        if self.source is not None:
            found |= {self.source[expert] for expert in self.route.needs(outputs) or range(self.experts.num_experts)}
        return sorted(found)

    def _contexts(self, inputs: Tensor, outputs: Sequence[int] | None, places: dict[int, int] | None) -> Tensor:
        if inputs.ndim == 2 or self.source is None:
            return inputs
        wanted = range(self.route.num_outputs) if outputs is None else outputs
        return pick(inputs, [number if places is None else places[number] for number in wanted])

    def _fed(self, inputs: Tensor, chosen: list[int] | None, places: dict[int, int] | None) -> Tensor:
        if inputs.ndim == 2 or self.source is None:
            return inputs
        sources = [self.source[expert] for expert in (range(len(self.source)) if chosen is None else chosen)]
        return pick(inputs, sources if places is None else [places[number] for number in sources])

    def _few(self, index: Tensor, chosen: list[int] | None, outputs: int, rows: int) -> bool:
        """Whether sending rows to the chosen experts is cheaper than computing all that may be read."""
        if torch.compiler.is_compiling():  # torch traces grouped products of bfloat16 alone: a traced graph takes all
            return False
        num_experts = self.experts.num_experts if chosen is None else len(chosen)
        num_chosen = outputs * index.shape[-1]
        saved = rows * (num_experts - num_chosen) * self.experts.num_weights
        return self.live is None and self.experts.by_rows and 2 * num_chosen <= num_experts and saved >= WORTH

    def _sent(self, inputs: Tensor, routed: Routed) -> Tensor:
        """Rows (B, F), or (O, B, F) with a stream an output, to their chosen experts and back: (O, B, width)."""
        rows = inputs.shape[-2]
        index, chosen = (part.expand(-1, rows, -1) for part in (routed.index, routed.chosen) if part is not None)
        groups = group(index.flatten(), self.experts.num_experts)
        pairs = groups.order // index.shape[-1]
        read = inputs[pairs % rows] if inputs.ndim == 2 else inputs.flatten(0, 1)[pairs]
        return gather(self.experts.grouped(read, groups), chosen, groups)

    def _own_streams(self, inputs: Tensor, routed: Routed, outputs: Sequence[int] | None) -> Tensor:
        chosen = self.route.needs(outputs)
        if routed.index is not None and self._few(routed.index, chosen, 1, inputs.shape[0] * inputs.shape[1]):
            return self._sent(inputs, routed)
        weights = routed.weights if chosen is None else routed.weights[..., chosen]
        values = self.experts(inputs.flatten(0, 1), chosen)
        joined = weights.expand(-1, inputs.shape[1], -1).flatten(0, 1).unsqueeze(0)
        return weigh(joined, values).view(*inputs.shape[:2], self.experts.width)

    def _note(self, routed: Routed, outputs: Sequence[int] | None) -> None:
        if not torch.compiler.is_compiling():
            _check_finite(routed.weights)
        if self.training and self.scales:
            routed = self._beside(routed, outputs)
            self.auxiliary = {name: scale * AUXILIARY[name](routed) for name, scale in self.scales.items()}

    def _beside(self, routed: Routed, outputs: Sequence[int] | None) -> Routed:
        """What the other outputs are wont to read, for where each task's rows come in batches of their own."""
        if self.habits is None:
            return routed
        mine = list(range(self.route.num_outputs) if outputs is None else outputs)
        rest = [output for output in range(self.route.num_outputs) if output not in mine]
        others = self.habits[rest].to(routed.probabilities.dtype) if rest else None
        now = routed.probabilities.detach().mean(dim=1).to(self.habits.dtype)
        self.habits = self.habits.index_copy(
            0, torch.tensor(mine, device=now.device), self.habits[mine].lerp(now, FORGET)
        )
        return replace(routed, others=others)


class Levels(nn.Module):
    """Mixes one after another over the same streams, of which only those that the asked-for outputs need are computed.

    Args:
        mixes: the first reads (B, F) or streams, each other one the streams of the one before.
    """

    def __init__(self, mixes: Sequence[Mix]) -> None:
        super().__init__()
        self.mixes: Any = nn.ModuleList(mixes)
        self.width = mixes[-1].experts.width

    def forward(self, features: Tensor, outputs: Sequence[int]) -> Tensor:
        """Maps (B, F), or all streams (S, B, F), to the asked-for outputs (O, B, width)."""
        plan = [list(outputs)]
        for mix in list(self.mixes)[:0:-1]:
            plan.insert(0, mix.reads(plan[0]))
        values, streams = features, None
        for mix, wanted in zip(self.mixes, plan, strict=True):
            everything = wanted == list(range(mix.route.num_outputs))
            values = mix(values, None if everything else wanted, streams=streams)
            streams = wanted
        return values


def weigh(weights: Tensor, values: Tensor) -> Tensor:
    """Σ_e w_oe u_e: weights (O, B, E), or (O, 1, E) the same for all rows, and values (E, B, H) to (O, B, H)."""
    if weights.shape[1] == 1:
        return (weights[:, 0] @ values.flatten(1)).view(len(weights), *values.shape[1:])
    return torch.bmm(weights.transpose(0, 1), values.transpose(0, 1)).transpose(0, 1)


def _check(experts: Experts | JoinedExperts, route: Route, source: Sequence[int] | None, live: Tensor | None) -> None:
    found = f"{experts.num_experts} experts"
    if route.num_experts != experts.num_experts:
        message = f"{found} were given a route over {route.num_experts}; both need the same number. Build them alike."
        raise RequestError(message)
    if source is not None and len(source) != experts.num_experts:
        message = f"{found} were given {len(source)} sources; each expert reads one stream. Give one number for each."
        raise RequestError(message)
    if live is not None and tuple(live.shape) != (route.num_outputs, route.num_experts):
        message = (
            f"The mask of whose gradient passes has shape {tuple(live.shape)}; {route.num_outputs} outputs and "
            f"{route.num_experts} experts need ({route.num_outputs}, {route.num_experts}). Give a row for each output."
        )
        raise RequestError(message)


def _check_finite(weights: Tensor) -> None:
    if not math.isfinite(weights.detach().sum().item()):
        message = (
            "A gate gives weights that are not finite; weights are numbers. Look for NaN in the features, or for a "
            "learning rate that is too high, and go back to the last good state."
        )
        raise RequestError(message)
