"""Fills `.grad` as an update says, with what the view has already computed."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

from motet._errors import RequestError
from motet.balance.engine._across import averaged
from motet.balance.engine._layers import shaped
from motet.balance.engine._setting import Setting
from motet.balance.engine._update import Update
from motet.balance.engine._view import View, without_below


def apply(view: View, update: Update) -> None:
    """Fills `.grad` of everything that the view's losses depend on, the same on all processes."""
    with averaging(view.setting):
        _fill(view, update)


def spoil(losses: Mapping[str, Tensor], setting: Setting | None) -> None:
    """Fills `.grad` with NaN, which a scaler takes for what it is: a step to be skipped."""
    with averaging(setting):
        (torch.stack(list(losses.values())).sum() * math.nan).backward()


def averaging(setting: Setting | None) -> AbstractContextManager[None]:
    """Averages over the processes, where there are several, what is added to `.grad` meanwhile."""
    return nullcontext() if setting is None or setting.ranks is None else averaged(setting.ranks)


def _fill(view: View, update: Update) -> None:
    stacked = torch.stack(list(view.by_name.values()))
    if update.heads is True and update.weights is not None:
        (stacked * update.weights.to(stacked)).sum().backward()
    elif view.own_features is not None:
        _apply_at_features(view, update, stacked)
    else:
        _apply_at_parameters(view, update, stacked)


def _apply_at_features(view: View, update: Update, stacked: Tensor) -> None:
    features = view.own_features or []
    if update.weights is not None:
        grads = view.combined(update.weights)
    elif view.setting is not None:
        grads = view.setting.at_features(_needed(update.direction), features)
    else:
        grads = _pieces(_needed(update.direction), features)
    own = view.own_grads
    if isinstance(update.heads, Tensor):
        own = _own_under(update.heads, stacked, [leaf for leaf, _ in own])
        total = (stacked * update.heads.to(stacked)).sum()
        own = without_below(own, total, features, view.combined(update.heads))
    check_known(view.setting, own)
    for leaf, grad in own:
        add_grad(leaf, grad)
    torch.autograd.backward(features, grads)


def _apply_at_parameters(view: View, update: Update, stacked: Tensor) -> None:
    passes = view.passes
    if update.weights is not None:
        found = passes.combine(update.weights)
    else:
        direction = _needed(update.direction)
        direction = direction if view.setting is None else view.setting.scaled(direction)
        found = dict(zip(passes.shared, _pieces(direction, list(passes.shared.values())), strict=True))
    if isinstance(update.heads, Tensor):
        own = _own_under(update.heads, stacked, passes.others)
    else:
        rest = [leaf for leaf in passes.others if id(leaf) not in passes.own_grads]
        own = _own_under(torch.ones_like(stacked), stacked, rest)
        own += [(leaf, passes.own_grads[id(leaf)]) for leaf in passes.others if id(leaf) in passes.own_grads]
    own += [(passes.shared[key], grad) for key, grad in found.items()]
    check_known(view.setting, own)
    new = found if update.weights is not None else {}  # a direction's pieces are one tensor
    for leaf, grad in own:
        add_grad(leaf, grad if grad.shape == leaf.shape else grad.reshape(leaf.shape), is_new=id(leaf) in new)


def _pieces(direction: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """A direction (P,) in the shapes of the tensors that it runs along."""
    sizes = [part.numel() * (2 if part.is_complex() else 1) for part in like]
    return [shaped(piece, part) for piece, part in zip(direction.split(sizes), like, strict=True)]


def check_known(setting: Setting | None, grads: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Refuses a gradient that nobody would average.

    Raises:
        RequestError: there are several processes, and a parameter is not among theirs.
    """
    if setting is None or setting.ranks is None:
        return
    known = {id(parameter) for parameter in setting.ranks.parameters}
    for leaf, _ in grads:
        if isinstance(leaf, nn.Parameter) and id(leaf) not in known:
            message = (
                f"A parameter of shape {tuple(leaf.shape)} gets a gradient here and is not among those of Ranks; all "
                "that is trained was expected. Pass Ranks(model.parameters()), and shard the trunk alone: heads are "
                "small."
            )
            raise RequestError(message)


def _own_under(weights: Tensor, stacked: Tensor, leaves: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """The gradients of the losses' sum under these weights at the tasks' own parameters."""
    if not leaves:
        return []
    total = (stacked * weights.detach().to(stacked)).sum()
    grads = torch.autograd.grad(total, leaves, retain_graph=True, allow_unused=True)
    return [(leaf, grad) for leaf, grad in zip(leaves, grads, strict=True) if grad is not None]


def _needed(direction: Tensor | None) -> Tensor:
    if direction is None:
        message = "An update needs weights or a direction; this method gave neither."
        raise RequestError(message)
    return direction


def add_grad(parameter: Tensor, grad: Tensor, *, is_new: bool = False) -> None:
    """Adds to `.grad`, as a backward would.

    Args:
        parameter: whose gradient it is.
        grad: of the parameter's shape.
        is_new: whether nothing else holds the gradient, so that it need not be copied.
    """
    grad = grad.detach().to(parameter.dtype)
    if parameter.grad is not None:
        grad = parameter.grad + grad
    elif not is_new:
        grad = grad.clone()
    parameter.grad = grad


@contextmanager
def grads_set_aside(leaves: Sequence[Tensor]) -> Iterator[None]:
    """Inside, `.grad` holds only what is new; afterwards also what was there before."""
    before = [leaf.grad for leaf in leaves]
    for leaf in leaves:
        leaf.grad = None
    new: list[Tensor | None] = [None] * len(leaves)
    try:
        yield
        new = [leaf.grad for leaf in leaves]
    finally:
        for leaf, old, grad in zip(leaves, before, new, strict=True):
            leaf.grad = old if grad is None else grad if old is None else old + grad
