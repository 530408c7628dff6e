"""ScaLearn: new tasks as scaled sums of what other tasks' adapters add."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from motet._errors import RequestError
from motet.models.adapters._adapter import Adapter
from motet.models.adapters._attach import Adapters
from motet.models.adapters._bottleneck import Bottleneck
from motet.models.adapters._factors import Factors
from motet.models.adapters._layer import AdapterLayer, Place
from motet.models.adapters._lora import TaskLoRA
from motet.models.adapters._selection import Selection
from motet.models.adapters._stages import follow


@dataclass(frozen=True)
class ScaLearn(Adapter):
    """New tasks from frozen adapters of others: scales of what each of those adds, and nothing else, are trained.

    For a task with few labels beside tasks whose adapters exist; `scalearn` makes it of those. What is added becomes
    Σ_s ω_ts ⊙ a_s with a_s what source s adds. The four forms of the paper:

        ScaLearn             ω_ts in R^out in every layer
        ScaLearn-Uniform     one number ω_ts in every layer      uniform=True
        ScaLearn++           ω_ts in R^out for all layers        one_for_all=True
        ScaLearn-Uniform++   one number ω_ts for all layers      both

    Args:
        inner: what the sources are: TaskLoRA, or Bottleneck as in the paper.
        sources: names of the sources' tasks.
        uniform: whether a scale is one number instead of one for each output.
        one_for_all: whether all layers share the scales.
        dropout: share of the scales that is dropped in training.

    Raises:
        RequestError: no source, or shared scales for layers of different sizes.

    Cost: for each new task S · out · L parameters with L layers, S · L, S · out, or S; a pass costs what all sources
        cost together.

    Source: Frohmann et al., ScaLearn: Simple and Highly Parameter-Efficient Task Transfer by Learning to Scale, ACL
        Findings 2024, and its released code: no softmax and no sum of one, ω normal around 2 / S with deviation 0.001,
        dropout 0.3, or none where uniform. Departure: several new tasks stand side by side, each as if alone.

    Example:
        >>> import torch
        >>> from motet.models.adapters import Bottleneck, attach, scalearn
        >>> sources = attach(torch.nn.Linear(6, 4), Bottleneck(reduction=2), tasks=["a", "b", "c"])
        >>> scalearn(sources, tasks=["new"], uniform=True).num_parameters()
        3
    """

    name: ClassVar[str] = "scalearn"

    inner: Adapter
    sources: tuple[str, ...]
    uniform: bool = False
    one_for_all: bool = False
    dropout: float = 0.3

    def layers(self, places: Sequence[Place]) -> list[AdapterLayer]:
        """Frozen sources and scales for each place."""
        self._check(places)
        chosen = Selection(self.sources)
        inner = self.inner.layers([Place(place.name, place.layer, chosen, place.generator) for place in places])
        first = ScaLearnLayer(places[0], inner[0], self)
        omega = first.omega if self.one_for_all else None
        rest = [ScaLearnLayer(place, part, self, omega) for place, part in zip(places[1:], inner[1:], strict=True)]
        return [first, *rest]

    def _check(self, places: Sequence[Place]) -> None:
        if not isinstance(self.inner, (TaskLoRA, Bottleneck)) or not self.sources:
            message = (
                f"Sources {list(self.sources)} of kind {self.inner!r} were given; one or more of TaskLoRA or "
                "Bottleneck were expected. Train those for the source tasks first, and call `scalearn`."
            )
            raise RequestError(message)
        sizes = {place.layer.out_features: place.name for place in places}
        if self.one_for_all and not self.uniform and len(sizes) > 1:
            shown = ", ".join(f"'{name}' {size}" for size, name in sizes.items())
            message = (
                f"Layers of different sizes ({shown}) cannot share a scale for each output. Take uniform=True, or "
                "layers of one size."
            )
            raise RequestError(message)


class ScaLearnLayer(AdapterLayer):
    """Scales of one layer, over frozen sources.

    Args:
        place: the layer.
        sources: what the sources add; it is frozen.
        settings: form and dropout.
        omega: (T, S, out) or (T, S, 1) scales that layers share; None makes some for this layer alone.
    """

    def __init__(
        self, place: Place, sources: AdapterLayer, settings: ScaLearn, omega: nn.Parameter | None = None
    ) -> None:
        super().__init__(place, dropout=0.0)
        count, width = len(settings.sources), 1 if settings.uniform else place.layer.out_features
        self.scale_dropout = settings.dropout
        self.reads_outputs = sources.reads_outputs
        self.sources = sources.requires_grad_(requires_grad=False)
        self.omega = place.normal(place.num_tasks, count, width, mean=2.0 / count, std=1e-3) if omega is None else omega

    def factors(self, tasks: slice | Tensor | None) -> list[Factors]:
        """The sources side by side as one wider update, with the scales of some tasks in what it gives."""
        omega = functional.dropout(self.omega, self.scale_dropout, self.training)[
            slice(None) if tasks is None else tasks
        ]
        return [_scaled(source, omega) for source in self.sources.factors(slice(None))]


def _scaled(source: Factors, omega: Tensor) -> Factors:
    down = source.down.transpose(0, 1).flatten(1).unsqueeze(0)
    up = (omega.unsqueeze(2) * source.up).flatten(1, 2)
    inner = None if source.inner is None else source.inner.flatten().reshape(1, 1, -1)
    outer = None if source.outer is None else (omega * source.outer.squeeze(1)).sum(dim=1, keepdim=True)
    return Factors(down, up, inner, outer, source.relu)


def scalearn(
    sources: Adapters,
    *,
    tasks: Sequence[str],
    uniform: bool = False,
    one_for_all: bool = False,
    dropout: float | None = None,
    seed: int = 0,
) -> Adapters:
    """Goes on to new tasks by scaling what trained adapters add.

    Args:
        sources: trained adapters of TaskLoRA or Bottleneck; they are taken off and stay as they are.
        tasks: names of the new tasks, which may be among the sources'.
        uniform: whether a scale is one number instead of one for each output of a layer.
        one_for_all: whether all layers share the scales.
        dropout: of the scales; None means 0.3, or 0 where uniform.
        seed: of the scales' first values.

    Raises:
        RequestError: the sources are of another kind, or the layers' sizes do not allow to share scales.

    Source: Frohmann et al., ACL Findings 2024; see ScaLearn.
    """
    share = (0.0 if uniform else 0.3) if dropout is None else dropout
    settings = ScaLearn(sources.adapter, sources.tasks, uniform, one_for_all, share)
    new = follow(sources, settings, tasks=tasks, seed=seed)
    with torch.no_grad():
        for name, part in new.parts.items():
            if isinstance(part, ScaLearnLayer):
                part.sources.load_state_dict(sources.parts[name].state_dict())
    return new
