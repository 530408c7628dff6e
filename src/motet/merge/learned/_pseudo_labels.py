"""aTLAS without labels: what a merge is sure of teaches it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from motet._errors import RequestError
from motet.merge._method import check_range
from motet.merge.learned._atlas import atlas

_AT_ONCE = 256
# Gets a function from inputs to the merged model's outputs, an expert's number and inputs; gives logits (B, C).
Logits: TypeAlias = Callable[[Callable[..., Any], int, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class PseudoLabels:
    """Which of a model's own answers count as labels, and how they are trained on.

    Args:
        augment: gives a changed view (B, …) of inputs (B, …) that keeps their class; random numbers come from the
            generator alone.
        logits: what the outputs mean, such as a task's frozen head over features; the outputs themselves if None.
        threshold: probability from 0 to 1 that an answer must exceed to count.
        trusted: share from 0 to 1 of the rows that are trusted from the start, spread over the classes.
        most: largest number of trusted rows of a class.
        batch: rows a step and task, a quarter of them trusted, at least 2.
        seed: of the rows' order and the changed views.

    Raises:
        RequestError: a parameter outside its range.
    """

    augment: Callable[[Tensor, torch.Generator], Tensor]
    logits: Logits | None = None
    threshold: float = 0.99
    trusted: float = 0.1
    most: int = 100
    batch: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        check_range("PseudoLabels", "threshold", self.threshold, 0.0, 1.0)
        check_range("PseudoLabels", "trusted", self.trusted, 0.0, 1.0)
        if self.batch < 2 or self.most < 1:
            message = f"PseudoLabels got batch={self.batch} and most={self.most}; at least 2 rows a step and 1 trusted"
            raise RequestError(message + " row of a class were expected. Raise the one that is below.")

    def trust(self, shares_BC: Tensor) -> Tensor:
        """(B,) the likeliest class of the surest rows of each class, and −1 for all other rows.

        Args:
            shares_BC: probabilities that the rows have the classes.
        """
        rows, classes = shares_BC.shape
        count = min(max(int(self.trusted * rows / classes), 1), self.most)
        surest = shares_BC.topk(min(count, rows), dim=0).indices.flatten()
        found = torch.full((rows,), -1, device=shares_BC.device)
        found[surest] = shares_BC.argmax(dim=1)[surest]
        return found

    def loss(self, call: Callable[..., Any], expert: int, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """The mean cross entropy of the changed views of rows that are trusted or sure, from what the plain ones say.

        Args:
            call: gives the merged model's outputs.
            expert: whose rows these are.
            batch: plain views (B, …), changed views, and trusted classes (B,) with −1 for none.
        """
        plain, changed, classes = batch
        logits = self.logits or _plainly
        with torch.no_grad():
            shares_BC = torch.softmax(logits(call, expert, plain), dim=-1)
        is_trusted = classes >= 0
        known_BC = functional.one_hot(classes.clamp(min=0), shares_BC.shape[1]).to(shares_BC)
        targets_BC = torch.where(is_trusted.unsqueeze(1), known_BC, shares_BC)
        counted = is_trusted | (shares_BC.amax(dim=1) > self.threshold)
        losses = functional.cross_entropy(logits(call, expert, changed), targets_BC, reduction="none")
        return (losses * counted).sum() / counted.sum().clamp(min=1)


def atlas_unlabelled(
    model: nn.Module,
    base: Mapping[str, Tensor],
    experts: Sequence[Mapping[str, Tensor]],
    inputs: Sequence[Tensor | None],
    *,
    labels: PseudoLabels,
    steps: int = 1000,
    rate: float = 1e-3,
    weight_decay: float = 0.1,
    clip: float = 1.0,
    blocks: int = 1,
) -> dict[str, Tensor]:
    """Learns the coefficients of `atlas` from inputs alone, such as those that the merged model is to answer.

    Choose it over `adamerging` where a changed view of an input is easy to make and the base already answers the tasks
    well, for it begins at the base and believes what the base is surest of.

        min over c of Σ_e mean over rows with t = ŷ₀ or max p > ω of CE(f(changed x; θ₀ + Σ_j c_pj ⊙ τ_pj), t),
        t = ŷ₀ in the rows of which the base is surest, else p = softmax f(x; θ₀ + Σ_j c_pj ⊙ τ_pj) as a constant

    Args:
        model: says how weights become outputs.
        base: state dict that the experts were tuned from.
        experts: their state dicts.
        inputs: for each expert all inputs (N, …) of its task, or None. A new task, of which there is no expert, takes
            the first place, with None in the others.
        labels: which answers count as labels, and the changed views.
        steps: of AdamW.
        rate: of AdamW.
        weight_decay: of AdamW.
        clip: largest norm of the gradient.
        blocks: as `atlas` takes it.

    Returns:
        The merged state dict.

    Raises:
        RequestError: there is not one set of inputs for each expert, or none at all.

    Cost: as `atlas`, with one more pass forward for each task.

    Source: Zhang et al., Knowledge Composition using Task Vectors with Learned Anisotropic Scaling, NeurIPS 2024, its
        test-time adaptation with unsupervised FixMatch, and that code's rates, batches and trusted rows. Departures:
        float32, constant rate; a step in which no row counts moves nothing, where that code divides by zero; and only
        the surest rows are trusted, where an index of that code marks every row.
    """
    _check(inputs, len(experts))
    return atlas(
        model, base, experts, _batches(model, base, inputs, labels), loss=labels.loss, steps=steps, rate=rate,
        weight_decay=weight_decay, clip=clip, blocks=blocks, seed=labels.seed,
    )  # fmt: skip


def _plainly(call: Callable[..., Any], expert: int, inputs: Tensor) -> Tensor:  # noqa: ARG001
    return call(inputs)


def _check(inputs: Sequence[Tensor | None], num_experts: int) -> None:
    if len(inputs) != num_experts or not any(rows is not None and len(rows) for rows in inputs):
        message = f"Inputs of {len(inputs)} tasks arrived for {num_experts} experts; one set for each was expected, in"
        raise RequestError(message + " the experts' order. Pass None for an expert without rows, and rows for one.")


def _batches(
    model: nn.Module, base: Mapping[str, Tensor], inputs: Sequence[Tensor | None], labels: PseudoLabels
) -> Iterator[list[tuple[Tensor, Tensor, Tensor] | None]]:
    """Step after step without end, a batch for each task that has rows."""
    generator = torch.Generator().manual_seed(labels.seed)
    streams = [
        None if rows is None else _stream(rows, _trusted(model, base, rows, expert, labels), labels, generator)
        for expert, rows in enumerate(inputs)
    ]
    while True:
        yield [None if stream is None else next(stream) for stream in streams]


@torch.no_grad()
def _trusted(model: nn.Module, base: Mapping[str, Tensor], rows: Tensor, expert: int, labels: PseudoLabels) -> Tensor:
    def call(*given: Any) -> Any:
        return torch.func.functional_call(model, dict(base), given)

    found = [(labels.logits or _plainly)(call, expert, part) for part in rows.split(_AT_ONCE)]
    return labels.trust(torch.softmax(torch.cat(found), dim=-1))


def _stream(
    rows: Tensor, trusted: Tensor, labels: PseudoLabels, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Three quarters of each batch from the rows that are not trusted, one from those that are."""
    known, others = ((trusted >= 0).nonzero().flatten(), (trusted < 0).nonzero().flatten())
    few = max(labels.batch // 4, 1) if len(others) else labels.batch
    first = _shuffled(others, labels.batch - few, generator)
    second = _shuffled(known, few, generator)
    while True:
        chosen = torch.cat([next(first), next(second)])
        yield rows[chosen], labels.augment(rows[chosen], generator), trusted[chosen]


def _shuffled(places: Tensor, count: int, generator: torch.Generator) -> Iterator[Tensor]:
    """`count` places at a time, each as often as every other."""
    left = places[:0]
    while True:
        while len(left) < count:
            left = torch.cat([left, places[torch.randperm(len(places), generator=generator).to(places.device)]])
        yield left[:count]
        left = left[count:]
