"""What stands between this process's gradients and those that a method is to see: other processes, and loss scaling."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from motet.balance.engine._across import Grads, gramian_across, means
from motet.balance.engine._layers import inner, shaped
from motet.balance.engine._passes import Passes
from motet.balance.engine._ranks import Ranks, highest, joined, lengths, summed


class OverflowedError(ArithmeticError):
    """Scaled gradients are not finite: this step is the scaler's to skip."""


@dataclass(frozen=True)
class Setting:
    """Turns gradients of this process's scaled losses into the whole batch's, and updates back.

    The whole batch's gradient is the mean of the processes', as in plain data-parallel training; see `Ranks`.

    Args:
        values: float64 the whole batch's loss by task, not scaled.
        own: tasks that this process has.
        ranks: the processes, or None for this one alone.
        scale: by which losses are scaled, or None.
    """

    values: dict[str, Tensor]
    own: frozenset[str]
    ranks: Ranks | None = None
    scale: float | None = None

    def losses(self, names: Sequence[str]) -> Tensor:
        """The whole batch's losses (T,)."""
        return torch.stack([self.values[name] for name in names])

    def gramian(self, passes: Passes) -> Tensor:
        """Inner products (T, T) at the parameters."""
        return self._unscaled(passes.gramian() if self.ranks is None else gramian_across(self.ranks, passes), power=2)

    def gramian_of_rows(self, rows: Tensor) -> Tensor:
        """Inner products (T, T) at the features: each process has coordinates of its own, so they add up."""
        found = inner(rows)
        if self.ranks is not None:
            found = summed(self.ranks, found) / len(self.ranks) ** 2
        return self._unscaled(found, power=2)

    def jacobian(self, rows: Tensor) -> Tensor:
        """Gradients (T, P) at the parameters."""
        return self._unscaled(rows if self.ranks is None else summed(self.ranks, rows) / len(self.ranks))

    def saliency(self, part: Tensor) -> Tensor:
        """Gradients (T, B, ...) at one tensor of the features, for the rows of all processes."""
        if self.ranks is not None:
            part = torch.cat(joined(self.ranks, part, dim=1), dim=1) / len(self.ranks)
        return self._unscaled(part)

    def features(self, part: Tensor) -> Tensor:
        """One tensor of the features (B, ...), with the rows of all processes."""
        return part if self.ranks is None else torch.cat(joined(self.ranks, part.detach(), dim=0))

    def gradients(self, found: Grads) -> Grads:
        """Parameters with their dense gradients; the same parameters on all processes."""
        of_all = {id(leaf): grad for leaf, grad in (found if self.ranks is None else means(self.ranks, found))}
        return [(leaf, self._unscaled(of_all[id(leaf)])) for leaf, _ in found]

    def check_finite(self, grads: Sequence[Tensor]) -> None:
        """Looks for what the scaler's scale was too high for, on all processes.

        Raises:
            OverflowedError: on all of them, where scaled gradients of one are not finite.
        """
        if self.scale is None:
            return
        bad = not all(bool(torch.isfinite(_values(grad)).all()) for grad in grads)
        if self.ranks is not None and self.ranks.parameters:
            mark = torch.tensor(int(bad), device=self.ranks.parameters[0].device)
            bad = bool(highest(self.ranks, mark))
        if bad:
            raise OverflowedError

    def joined_saliency(self, part: Tensor) -> Tensor:
        """Gradients (T, B, ...) for all processes' rows, up to one factor; those of this process keep their graph."""
        if self.ranks is None:
            return part
        parts = joined(self.ranks, part.detach(), dim=1)
        parts[self.ranks.here] = part
        return torch.cat(parts, dim=1)

    def norms(self, parts: Sequence[Tensor]) -> list[float]:
        """Euclidean lengths over the rows of all processes, up to one factor."""
        squares = torch.stack([torch.linalg.vector_norm(_real(part), dtype=torch.float64).square() for part in parts])
        return (squares if self.ranks is None else summed(self.ranks, squares)).sqrt().tolist()

    def scaled(self, direction: Tensor) -> Tensor:
        """An update as the scaler expects to find it."""
        return direction if self.scale is None else direction * self.scale

    def at_features(self, direction: Tensor, features: Sequence[Tensor]) -> list[Tensor]:
        """This process's rows of a direction that was found from the rows of all, laid out as the features are."""
        counts = [[len(part)] if self.ranks is None else lengths(self.ranks, part, dim=0) for part in features]
        here, size = (0, 1) if self.ranks is None else (self.ranks.here, len(self.ranks))
        found: list[Tensor] = []
        start = 0
        for part, rows in zip(features, counts, strict=True):
            width = math.prod(part.shape[1:]) * (2 if part.is_complex() else 1)
            first = start + width * sum(rows[:here])
            found.append(shaped(size * self.scaled(direction[first : first + width * len(part)]), part))
            start += width * sum(rows)
        return found

    def _unscaled(self, values: Tensor, power: int = 1) -> Tensor:
        if self.scale is None:
            return values
        if not bool(torch.isfinite(values).all()):
            raise OverflowedError
        # Half precision would lose what the scale was there to keep.
        wide = values.float() if values.dtype in {torch.float16, torch.bfloat16} else values
        return wide / self.scale**power


def _values(grad: Tensor) -> Tensor:
    return grad.coalesce().values() if grad.is_sparse else grad


def _real(part: Tensor) -> Tensor:
    return torch.view_as_real(part) if part.is_complex() else part


@contextmanager
def own_gradients(setting: Setting | None, parameters: Iterable[Tensor]) -> Iterator[None]:
    """Scales what a method meanwhile adds to the gradients of its own parameters, as a scaler expects it."""
    if setting is None or setting.scale is None:
        yield
        return
    before = [(parameter, parameter.grad) for parameter in parameters]
    for parameter, _ in before:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, grad in before:
            new = None if parameter.grad is None else parameter.grad * setting.scale
            parameter.grad = grad if new is None else new if grad is None else grad + new
