"""Losses that a method takes the logarithm of."""

import torch
from torch import Tensor

from motet._errors import RequestError
from motet.balance.engine._view import View

# A loss below this counts as this: the logarithm of zero has no gradient to give.
FLOOR = 1e-12


def positive_losses(view: View) -> Tensor:
    """The losses' values, (T,) float64, none below `FLOOR`.

    Raises:
        RequestError: a loss is negative.
    """
    check_positive(dict(zip(view.names, view.losses.tolist(), strict=True)), view.method)
    return view.losses.clamp(min=FLOOR)


def check_positive(losses: dict[str, float], method: str) -> None:
    """Refuses a negative loss, with the task's name."""
    for name, loss in losses.items():
        if loss < 0:
            message = (
                f"Task '{name}' has a loss of {loss:g}; {method} takes logarithms and expects none below zero. Add a "
                "constant that keeps this loss positive, or choose a method that does not compare losses by ratio."
            )
            raise RequestError(message)


def geometric_mean(losses: Tensor) -> Tensor:
    """The geometric mean of positive numbers, through logarithms so that no product overflows."""
    return torch.exp(losses.log().mean())
