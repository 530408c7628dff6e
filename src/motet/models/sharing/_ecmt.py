"""ECMT: one training, many widths; a budget and the tasks' importance choose among them afterwards."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from motet._errors import RequestError
from motet.models.blocks import SlimLayer, StackedLinear
from motet.models.sharing._budget import WidthCosts, best_widths
from motet.models.sharing._sharing import Sharing, steps


class ECMT(Sharing):
    """A shared trunk and a decoder for each task, all of which run at a width that is chosen after training.

    For one model on devices of several speeds, or whose tasks come to matter more or less than was known:
    `measure_widths(model, batches)` once after training, then `model.configure(budget=0.5, preference={"a": 2.0})` at
    any time. Each training step runs every width, trunk and decoders alike, and some mixtures drawn at random. The
    tasks' losses are the means over them, and each level z_c of a narrower trunk learns to tell the full one's,
    ‖P_c z_c - stop(z)‖², which is the auxiliary loss `distillation`. Configured to less than the full width, a model
    trains that width alone.

    Args:
        num_tasks: T.
        width: F, the size of the features it takes; what stands before it always runs whole.
        trunk: sizes of the trunk's levels at full width.
        decoder: size of each decoder's middle at full width.
        size: F', the size of the features that a decoder gives at any width.
        fractions: the widths, increasing up to 1.
        num_drawn: choices of a width for the trunk and for each decoder that are drawn in each step.
        distillation: scale of the auxiliary loss; much of it costs the narrowest widths.
        seed: of the widths that are drawn.

    Raises:
        RequestError: fractions that do not increase from above zero to one, or no level.

    Cost: B · (Σ in · out of the trunk + T · decoder · (last of the trunk + F')) multiplications at full width, nearly
        with the square of a fraction; a training step about two and a half times as much.

    Source: Aich et al., Efficient Controllable Multi-Task Architectures, ICCV 2023, by its abstract: slimmable encoder
        and decoders, distillation that makes the encoder's features invariant to width, a search that gives preferred
        tasks larger decoders. Departures: linear layers with layer norms for convolutions; one fraction for the whole
        trunk, which makes the search exact; every width in each step, where Yu and Huang, Universally Slimmable
        Networks, ICCV 2019, take the largest, the smallest and drawn ones: the draw's noise cost more than it saved;
        distillation is a mean square through a learned projection; losses are means over the widths of a step, not
        sums, so that a learning rate keeps its meaning; sizes are ours. A traced graph (`torch.compile`) runs no drawn
        mixture.
    """

    name: ClassVar[str] = "ecmt"

    def __init__(
        self,
        num_tasks: int,
        *,
        width: int,
        trunk: Sequence[int] = (128, 128),
        decoder: int = 128,
        size: int = 128,
        fractions: Sequence[float] = (0.25, 0.5, 0.75, 1.0),
        num_drawn: int = 1,
        distillation: float = 0.01,
        seed: int = 0,
    ) -> None:
        super().__init__(num_tasks, inputs=width, width=size)
        _check_fractions(fractions)
        self.fractions = tuple(fractions)
        self.trunk = nn.ModuleList(SlimLayer(1, a, _sizes(b, fractions)) for a, b in steps(width, trunk))
        self.tell = nn.ModuleList(StackedLinear(1, full, full) for full in trunk)
        self.decode = SlimLayer(num_tasks, trunk[-1], _sizes(decoder, fractions))
        self.give = StackedLinear(num_tasks, decoder, size)
        self.num_drawn = num_drawn
        self.distillation = distillation
        self.seed = seed
        self.active: list[int] | None = None
        self._last: dict[str, Any] = {}
        self.draws: Tensor
        self.register_buffer("draws", torch.zeros((), dtype=torch.int64))
        self.harm: Tensor  # what each task loses by the trunk's width and its own; infinite until it is measured
        self.register_buffer("harm", torch.full((len(fractions), len(fractions), num_tasks), torch.inf))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_last": {}}  # what hangs on a graph can be neither copied nor pickled

    @property
    def auxiliary(self) -> dict[str, Tensor]:
        """The distillation loss of the last forward pass; empty in evaluation."""
        return {name: loss for name, loss in self._last.items() if name == "distillation"}

    @property
    def rehearsed(self) -> list[tuple[list[int], Tensor]]:
        """The tasks of the last forward pass and their features (T, B, F') at each narrower width of that step."""
        return self._last.get("rehearsed", [])

    @property
    def costs(self) -> WidthCosts:
        """Multiplications a row, at each width."""
        levels = list(zip(*(layer.sizes for layer in self._levels()), strict=True))
        shared = [sum(a * b for a, b in pairwise([self.inputs, *sizes])) for sizes in levels]
        own = [[size * (sizes[-1] + self.width) for size in self.decode.sizes] for sizes in levels]
        return WidthCosts(shared, own, self.num_tasks)

    def forward(self, features: Tensor, tasks: Sequence[int] | None = None) -> Tensor:
        """Maps features (B, F) or tokens (B, S, F) to one feature for each asked-for task, (T, B, size)."""
        found = super().forward(features, tasks)
        if features.ndim == 3 and "rehearsed" in self._last:
            joined = [(asked, run.unflatten(1, features.shape[:2]).mean(dim=2)) for asked, run in self.rehearsed]
            self._last["rehearsed"] = joined
        return found

    def streams(self, features: Tensor, tasks: Sequence[int]) -> Tensor:
        """Maps (B, F) to (T, B, size)."""
        full = [len(self.fractions) - 1] * (1 + self.num_tasks)
        levels, found = self.at(features, tasks, self.active or full)
        self._last = {}
        if self.training and self.active is None and len(self.fractions) > 1:
            self._rehearse(features, list(tasks), levels)
        return found

    def at(self, features: Tensor, tasks: Sequence[int], widths: Sequence[int]) -> tuple[list[Tensor], Tensor]:
        """The trunk's levels and the tasks' features (T, B, size), the trunk and each task at a width of its own.

        Args:
            features: (B, F).
            tasks: the asked-for tasks.
            widths: the trunk's width and each task's, asked for or not, by number.
        """
        values = features
        levels: list[Tensor] = []
        for layer in self._levels():
            values = layer(values, widths[0])[0]
            levels.append(values)
        own = [widths[1 + task] for task in tasks]
        order = sorted(range(len(tasks)), key=own.__getitem__)
        # One batched product for each width in use.
        parts = []
        for width in sorted(set(own)):
            numbers = [tasks[place] for place in order if own[place] == width]
            parts.append(self.give.slim(self.decode(values, width, numbers), self.width, numbers))
        found = parts[0] if len(parts) == 1 else torch.cat(parts)[[order.index(place) for place in range(len(tasks))]]
        return levels, found

    def configure(self, *, budget: float | None = None, preference: Sequence[float] | None = None) -> list[int] | None:
        """Sets the widths that are best for a budget, from what `measure_widths` found.

        Args:
            budget: share of the full cost, of trunk and decoders; None for the full width.
            preference: (T,) how much each task counts; None for all alike.

        Returns:
            The trunk's width and each task's, by number; None for the full width.

        Raises:
            RequestError: widths that were not measured, a budget that is too small, or preferences that are no weights.
        """
        if budget is None and preference is None:
            self.active = None
            return None
        if bool(self.harm.isinf().any()):
            message = (
                "The model was asked for a budget before its widths were measured; what each width costs a task is not "
                "known. Call motet.models.measure_widths(model, batches) with validation batches first."
            )
            raise RequestError(message)
        counts = [1.0] * self.num_tasks if preference is None else list(preference)
        if len(counts) != self.num_tasks or not all(0 <= count < float("inf") for count in counts) or not any(counts):
            message = (
                f"The preferences {counts} were given; the {self.num_tasks} tasks need a number of zero or more each, "
                "one of them above zero. Give such."
            )
            raise RequestError(message)
        costs = self.costs
        limit = (1.0 if budget is None else budget) * costs.range[1]
        self.active = best_widths(costs, self.harm.tolist(), counts, limit)
        return self.active

    def _rehearse(self, features: Tensor, tasks: list[int], levels: list[Tensor]) -> None:
        last = len(self.fractions) - 1
        narrower = [[number] * (1 + self.num_tasks) for number in range(last)]
        if not torch.compiler.is_compiling():
            narrower += [self._draw() for _ in range(self.num_drawn)]
        runs = [self.at(features, tasks, widths) for widths in narrower]
        told = [self._told(mine, levels) for widths, (mine, _) in zip(narrower, runs, strict=True) if widths[0] < last]
        self._last = {
            "rehearsed": [(tasks, found) for _, found in runs],
            "distillation": self.distillation * torch.stack(told).mean(),
        }

    def _told(self, mine: list[Tensor], levels: list[Tensor]) -> Tensor:
        """How far a narrower trunk's levels are from telling the full one's."""
        parts = [
            functional.mse_loss(tell.slim(narrow, full.shape[-1])[0], full.detach())
            for tell, narrow, full in zip(self.tell, mine, levels, strict=True)
            if isinstance(tell, StackedLinear)
        ]
        return torch.stack(parts).mean()

    def _levels(self) -> list[SlimLayer]:
        return [layer for layer in self.trunk if isinstance(layer, SlimLayer)]

    def _draw(self) -> list[int]:
        """A width for the trunk and for each task, from the seed and the number of draws so far."""
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + int(self.draws))
        self.draws += 1
        return torch.randint(len(self.fractions), (1 + self.num_tasks,), generator=generator).tolist()


def _sizes(full: int, fractions: Sequence[float]) -> list[int]:
    return [max(1, round(full * part)) for part in fractions]


def _check_fractions(fractions: Sequence[float]) -> None:
    if not fractions or fractions[0] <= 0 or fractions[-1] != 1 or any(a >= b for a, b in pairwise(fractions)):
        message = (
            f"The fractions {list(fractions)} were given; widths increase from above zero up to 1. "
            "Give (0.25, 0.5, 0.75, 1.0), say."
        )
        raise RequestError(message)
