"""Gradients that were found elsewhere, for a method to decide from as from its own."""

from collections.abc import Mapping
from functools import cached_property

import torch
from torch import Tensor

from motet.balance.engine._update import Update
from motet.balance.engine._view import View
from motet.balance.parts._coordinates import inner_products


class GivenView(View):
    """A step whose gradients are already there, and whose losses have no graph any more.

    Args:
        losses: the losses' values by task.
        rows: (T, P) the tasks' gradients.
        method: the method's name, for messages.
    """

    def __init__(self, losses: Mapping[str, Tensor], rows: Tensor, *, method: str) -> None:
        super().__init__({name: loss.detach() for name, loss in losses.items()}, None, None, method=method)
        self.given = rows

    @cached_property
    def jacobian(self) -> Tensor:
        """The given rows."""
        return self.given

    @cached_property
    def gramian(self) -> Tensor:
        """Their inner products (T, T), float64."""
        return inner_products(self.given, self.given)

    @property
    def formed(self) -> Tensor | None:
        """The Gramian, if the method asked for it."""
        return self.__dict__.get("gramian")


def direction_of(update: Update, rows: Tensor) -> Tensor:
    """The shared gradient (P,) that an update makes of these rows (T, P)."""
    if update.direction is not None or update.weights is None:
        return torch.zeros_like(rows[0]) if update.direction is None else update.direction
    return update.weights.to(rows) @ rows


def head_weights(update: Update) -> Tensor | None:
    """The weights (T,) that the tasks' own parameters get; None for their own gradients as they are."""
    if isinstance(update.heads, Tensor):
        return update.heads
    return update.weights if update.heads else None
