"""The Gramian from part of the rows: a backward of our own takes only these, and a last plain one takes all."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from motet._errors import RequestError
from motet.balance.engine._calibration import calibrated
from motet.balance.engine._conflict import cosines
from motet.balance.engine._near import exact_gramian, near_plans
from motet.balance.engine._passes import Passes
from motet.balance.engine._plans import Delta, Plan
from motet.balance.engine._rows import CoupledError
from motet.balance.engine._top_pass import Key, key_of
from motet.balance.engine._tops import shared_owners


@dataclass(frozen=True)
class Sketch:
    """How the Gramian is estimated: each task's gradient from part of the rows, and their inner products.

    Choose it where T is large and rows are many: weights need a rough Gramian, and the gradient that they are applied
    to is exact. With S the r chosen rows of B, drawn anew at each step, the same for all tasks,

        ĝ_k = Σ_{b in S} ω_kb g_kb,   Ĝ_ij = ĝ_i · ĝ_j

    The weights ω, near B / r, make come out right what is known of all rows: the gradients at the features
    (see `calibrated`). Ĝ is a Gramian, so that every method can read it. Its inner products hold some of the scatter of
    the rows on top of the whole batch's: lengths come out larger, and angles nearer to a right one, the more the fewer
    rows there are. Taking that scatter off again makes Ĝ unbiased and useless: it is then often no Gramian at all.
    Layers near the features that cost little are read from all rows (see `near_plans`).
    Where a layer has many rows an example (tokens, pixels), its inputs are projected too, by a Gaussian (in, width).

    Where that cannot be done, or would save nothing, the Gramian is exact; `Step.source` says which and why. So it is
    where rows belong to one task each, where some operation mixes rows (BatchNorm in training) or is not known, at
    features, with a scaler and over several processes.

    Args:
        share: r / B, above 0 and at most 1; None for 1/8 up to 16 tasks and 3/16 above, where close calls are more, and
            in a small batch for 8 rows, or a sixth of them.
        width: columns of the projection, at least 1.
        seed: of the draws; a method counts its steps and saves that count.

    Raises:
        RequestError: a share or width out of range.

    Cost: the backward through the trunk for T · r rows in the place of T · B, and one plain backward.
    """

    share: float | None = None
    width: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.share is not None and not 0 < self.share <= 1) or self.width < 1:
            message = (
                f"Sketch got share={self.share} and width={self.width}; a share above 0 and at most 1 and a width of "
                "at least 1 were expected. Sketch() is a good start."
            )
            raise RequestError(message)

    def share_of(self, num_tasks: int) -> float:
        """The share of the rows of a large batch that so many tasks get."""
        if self.share is not None:
            return self.share
        return 1 / 8 if num_tasks <= 16 else 3 / 16


Source = Literal["exact", "sketch"] | Sketch


@dataclass(frozen=True)
class Estimate:
    """A Gramian and how it was found.

    Args:
        gramian: (T, T), float64.
        source: in words.
    """

    gramian: Tensor
    source: str


def estimate(passes: Passes, sketch: Sketch, step: int) -> Estimate:
    """The Gramian from part of the rows, or the exact one where that cannot be.

    Args:
        passes: of this step.
        sketch: how.
        step: the step's number: other rows at each.
    """
    try:
        edges = _edges(passes)
        count = passes.top_pass.tops[0].shape[0]
        num_chosen = _num_chosen(sketch, count, len(passes.losses))
        if num_chosen >= count:
            return Estimate(passes.gramian(), f"exact: there are {count} rows")
        generator = torch.Generator().manual_seed(sketch.seed * 1_000_003 + step)
        index = torch.randperm(count, generator=generator)[:num_chosen].sort().values
        index = index.to(passes.losses[0].device)
        held = passes.rows_at(index, edges, weights=calibrated(passes.top_pass.tops, index))
    except CoupledError as error:
        return Estimate(passes.gramian(), f"exact: {error}")
    near = near_plans(passes)
    total = exact_gramian(passes, near)
    deltas = {key: Delta(values, None, rows) for key, (values, rows) in held.items()}
    done = {id(plan) for plan in near}
    for plan in passes.plans_by_rows:
        if id(plan) not in done:
            projection = _projection(plan, deltas, sketch.width, generator)
            total += plan.build(deltas, len(passes.losses), projection).gramian()
    return Estimate(0.5 * (total + total.T), f"{num_chosen} of {count} rows")


@dataclass(frozen=True)
class SketchError:
    """How far an estimated Gramian is from the exact one.

    Args:
        relative: length of the difference, relative to the exact Gramian's.
        cosine: the greatest error among the cosines between two tasks' gradients.
        source: how the estimate was found.
    """

    relative: float
    cosine: float
    source: str


def sketch_error(
    losses: Mapping[str, Tensor], shared: Iterable[Tensor], *, sketch: Sketch | None = None, step: int = 0
) -> SketchError:
    """Finds the Gramian both ways and compares them; `.grad` is left alone.

    Args:
        losses: a scalar for each task.
        shared: parameters at which gradients are compared.
        sketch: how it is estimated.
        step: the step's number: other rows at each.

    Cost: that of the exact Gramian and of the sketch.
    """
    parameters = list(shared)
    exact = Passes(losses, parameters).gramian()
    found = estimate(Passes(losses, parameters), sketch or Sketch(), step)
    relative = (found.gramian - exact).norm() / exact.norm().clamp(min=torch.finfo(exact.dtype).tiny)
    difference = (cosines(found.gramian) - cosines(exact)).abs().max()
    return SketchError(float(relative), float(difference), found.source)


def _num_chosen(sketch: Sketch, count: int, num_tasks: int) -> int:
    least = 2 if sketch.share is not None else max(2, min(8, count // 6))
    return max(least, math.ceil(sketch.share_of(num_tasks) * count))


def _edges(passes: Passes) -> list[GradientEdge]:
    """The layers' outputs in the common part.

    Raises:
        CoupledError: rows cannot be told apart, or need not be.
    """
    edges = [edge for plan in passes.plans_by_rows for edge in plan.edges]
    if not edges:
        message = f"{passes.unread} uses a shared parameter in a way that is not known"
    elif not passes.frontier or not all(passes.is_common(edge) for edge in edges):
        message = "tasks do not meet in one place above all shared parameters"
    elif len({top.shape[:1] for top in passes.top_pass.tops}) != 1 or not passes.top_pass.tops[0].shape:
        message = "tasks meet in places with different numbers of rows"
    elif shared_owners(passes.top_pass.tops) is not None:
        message = "each row belongs to one task"
    else:
        return edges
    raise CoupledError(message)


def _projection(plan: Plan, deltas: Mapping[Key, Delta], width: int, generator: torch.Generator) -> Tensor | None:
    """S (in, width) where a layer has many rows and inputs: E[S Sᵀ] = 1, so inner products stay unbiased."""
    values = deltas[key_of(plan.edges[0])].values
    num_outputs = values.shape[1:][plan.reader.channels] if plan.reader is not None and plan.is_product else 0
    if not num_outputs or min(values[0].numel(), plan.parameter.numel()) <= 2 * width * num_outputs:
        return None
    matrix = torch.randn(plan.parameter.numel() // num_outputs, width, generator=generator, dtype=values.dtype)
    return matrix.to(values.device) / width**0.5
