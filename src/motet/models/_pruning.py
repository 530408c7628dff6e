"""A smaller model: without the experts that a task's gate hardly uses."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from motet._errors import RequestError
from motet.models._multitask import MultiTaskModel
from motet.models.blocks import Experts, Mix, PrunedRoute, Routed
from motet.models.blocks._pruned_route import checked_kept

Batch = tuple[Any, Mapping[str, Tensor], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Pruning:
    """What was taken away, and what that did.

    Args:
        kept: for each `Mix` in order, for each of its outputs, the experts that it still reads, by their old numbers.
        experts: how many experts there are, before and after.
        change: by task, how far its outputs moved on the given rows: root mean square, as a share of the outputs' own.
    """

    kept: list[list[list[int]]]
    experts: tuple[int, int]
    change: dict[str, float]


def expert_usage(model: MultiTaskModel, batches: Iterable[Batch]) -> list[Tensor]:
    """How much each output of each `Mix` uses each expert, (O, E).

    Where a route chooses a few experts, the share of the rows that go to one; else the share of the weights. A batch
    runs the tasks that have a label in it, and no others, so that data sets of different tasks may be given one by one.

    Args:
        model: whose sharing module has experts.
        batches: rows, each batch (inputs, targets by task, present by task).

    Raises:
        RequestError: no expert in the model, or a task without a label in all batches.
    """
    mixes = list(_mixes(model).values())
    used = [torch.zeros(mix.route.num_outputs, mix.route.num_experts, dtype=torch.float64) for mix in mixes]
    rows = [torch.zeros(mix.route.num_outputs, 1, dtype=torch.float64) for mix in mixes]

    def note(number: int, _: nn.Module, inputs: tuple[Any, ...], routed: Routed) -> None:
        outputs = list(range(len(used[number]))) if inputs[1] is None else list(inputs[1])
        weights = routed.weights.detach().double().abs().cpu()
        few = routed.index is not None
        shares = (weights > 0).double() if few else weights / weights.sum(dim=-1, keepdim=True).clamp(min=1e-12)
        used[number][outputs] += shares.sum(dim=1)
        rows[number][outputs] += shares.shape[1]

    seen: set[str] = set()
    with ExitStack() as stack:
        for number, mix in enumerate(mixes):
            stack.callback(mix.route.register_forward_hook(partial(note, number)).remove)
        for batch in batches:
            tasks = _labelled(model, batch)
            seen |= set(tasks)
            if tasks:
                _outputs(model, batch[0], tasks)
    for task in model.tasks:
        if task not in seen:
            message = (
                f"Task '{task}' has no label in the batches; which experts it uses cannot be told. Give batches in "
                "which each task has some."
            )
            raise RequestError(message)
    return [share / number.clamp(min=1.0) for share, number in zip(used, rows, strict=True)]


def prune(
    model: MultiTaskModel, batches: Sequence[Batch] | Iterable[Batch], *, threshold: float = 0.01
) -> tuple[MultiTaskModel, Pruning]:
    """Drops the experts that a task's gate hardly uses, and says what that does to the outputs.

    Each output keeps the experts whose usage is at least `threshold`, and the one that it uses most; experts that no
    output keeps are gone. Weights of what stays are as they were, so that dropping what was never chosen changes
    nothing. With `tasks=[…]` the pruned model computes what those tasks keep and no more. The model given stays as it
    is; train the pruned one on where `change` is too large.

    Args:
        model: trained, with experts in its sharing module.
        batches: rows to measure on, each batch (inputs, targets by task, present by task); gone through twice.
        threshold: least usage that is kept, as a share of rows or of weights, from 0 to 1.

    Returns:
        The smaller model, and what happened.

    Raises:
        RequestError: see `expert_usage`; a threshold outside 0 to 1, or batches that can be gone through once only.

    Cost: three passes over the batches.

    Source: Chen et al., Mod-Squad: Designing Mixtures of Experts As Modular Multi-Task Learners, CVPR 2023, and its
        successor for separate data sets: experts whose frequency for a task is below a threshold are cut away.
        Departure: the weights of the rest are not made larger, so that dropping what is not used costs nothing.
    """
    if not 0.0 <= threshold <= 1.0:
        message = f"The threshold {threshold} was given; it is a share, from 0 to 1. Give 0.01, say."
        raise RequestError(message)
    usage = expert_usage(model, batches)
    kept = []
    for mix, shares in zip(_mixes(model).values(), usage, strict=True):
        strong = (shares >= threshold) & mix.route.see.cpu() & (shares > 0)
        strong[torch.arange(len(shares)), (shares + mix.route.see.cpu()).argmax(dim=1)] = True
        kept.append([row.nonzero().flatten().tolist() for row in strong])
    pruned = keep_experts(model, kept)
    counts = [sum(mix.experts.num_experts for mix in _mixes(part).values()) for part in (model, pruned)]
    return pruned, Pruning(kept, (counts[0], counts[1]), _change(model, pruned, batches))


def keep_experts(model: MultiTaskModel, kept: Sequence[Sequence[Sequence[int]]]) -> MultiTaskModel:
    """A copy of a model with some of its experts, as `prune` found them: a pruned model's state loads into it.

    Args:
        model: as it was built or trained.
        kept: for each `Mix` in order, for each of its outputs, the experts that it reads.

    Raises:
        RequestError: no expert in the model, or lists that do not fit.
    """
    pruned = copy.deepcopy(model)
    mixes = _mixes(pruned)
    if len(kept) != len(mixes):
        message = (
            f"Experts to keep were given for {len(kept)} mixes; the model has {len(mixes)}. Take the lists that "
            "`prune` reports for this model."
        )
        raise RequestError(message)
    for (name, mix), numbers in zip(mixes.items(), kept, strict=True):
        parent, _, child = name.rpartition(".")
        setattr(pruned.get_submodule(parent), child, _smaller(mix, checked_kept(numbers, mix.route)))
    return pruned


def _smaller(mix: Mix, kept: Tensor) -> Mix:
    route = PrunedRoute(mix.route, kept)
    if not isinstance(mix.experts, Experts):
        message = (
            "A model to which experts were added later was to be pruned; its experts are in two parts. Prune "
            "first, and add after."
        )
        raise RequestError(message)
    found = Mix(
        mix.experts.only(route.experts),
        route,
        source=None if mix.source is None else [mix.source[number] for number in route.experts],
        live=None if mix.live is None else mix.live[:, route.experts],
        auxiliary=mix.scales,
    )
    return found.to(next(mix.parameters()).device).train(mix.training)


def _change(model: MultiTaskModel, pruned: MultiTaskModel, batches: Iterable[Batch]) -> dict[str, float]:
    moved, whole = dict.fromkeys(model.tasks, 0.0), dict.fromkeys(model.tasks, 0.0)
    for batch in batches:
        tasks = _labelled(model, batch)
        if not tasks:
            continue
        before, after = (_outputs(part, batch[0], tasks) for part in (model, pruned))
        for task in tasks:
            moved[task] += float((after[task] - before[task]).double().square().sum())
            whole[task] += float(before[task].double().square().sum())
    if not any(whole.values()):
        message = (
            "The batches were empty when they were gone through again; pruning measures once to choose, and once to "
            "tell what it did. Give a list, or a loader that begins anew."
        )
        raise RequestError(message)
    return {task: (moved[task] / max(whole[task], 1e-30)) ** 0.5 for task in model.tasks}


@torch.no_grad()
def _outputs(model: MultiTaskModel, inputs: Any, tasks: list[str]) -> dict[str, Tensor]:
    training = model.training
    try:
        return model.eval()(inputs, tasks)
    finally:
        model.train(training)


def _labelled(model: MultiTaskModel, batch: Batch) -> list[str]:
    _, targets, present = batch
    return [task for task in model.tasks if task in targets and bool(present[task].any())]


def _mixes(model: nn.Module) -> dict[str, Mix]:
    found = {name: module for name, module in model.named_modules() if isinstance(module, Mix)}
    if not found:
        message = (
            "The experts of a model without any were asked for. Build it with a sharing module that has some, such as "
            "motet.models.sharing.TaskGated."
        )
        raise RequestError(message)
    return found
