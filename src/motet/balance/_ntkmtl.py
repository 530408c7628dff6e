"""Balance by the neural tangent kernel (NTKMTL and NTKMTL-SR)."""

from typing import ClassVar

import torch
from torch import Tensor

from motet._errors import RequestError
from motet.balance._balancer import Balancer
from motet.balance._claims import Golden
from motet.balance.engine._sketch import Source
from motet.balance.engine._update import Update
from motet.balance.engine._view import View
from motet.balance.parts._gramian_method import GramianBalancer


class NTKMTL(GramianBalancer):
    """Gives every task the same speed of convergence, as its neural tangent kernel foretells it.

    Choose it where tasks learn at very different speeds; it leads the field's tables on scenes and faces. It does not
    look at conflicts.

        ω_k = √(mean_j λ_j / λ_k) with λ_k = ‖g_k‖²,   d = Σ_k ω_k g_k

    Args:
        power: of the ratio of eigenvalues; the authors report that 0.75 may do better.
        gramian: "exact"; or "sketch" or a `Sketch`, for an estimate from part of the rows.
        skip_bad: leave a task with a NaN or infinite loss out of the step instead of raising.

    Cost: the Gramian.

    Source: Qin et al., NTKMTL: Mitigating Task Imbalance in Multi-Task Learning from Neural Tangent Kernel Perspective,
        NeurIPS 2025, with n = 1. Departures from the released code: the mean of λ, not its sum times T, and no clipping
        at 1, which hides that factor: so the step fits the plain sum's learning rate. Heads keep their own gradient, as
        there.
    """

    name: ClassVar[str] = "ntkmtl"
    claims: ClassVar[frozenset[str]] = frozenset({
        "scale equivariant", "mean when agreeing", "one task is plain", "zero is harmless",
    })  # fmt: skip
    golden: ClassVar[tuple[Golden, ...]] = (
        Golden(((1.0, 0.0), (0.0, 7.0)), (5.0, 5.0), "by hand: mean λ = 25, each gradient gets length 5"),
    )

    def __init__(self, *, power: float = 0.5, gramian: Source = "exact", skip_bad: bool = False) -> None:
        super().__init__(gramian=gramian, skip_bad=skip_bad)
        self.power = power

    def update(self, view: View) -> Update:
        """Weights that even out the eigenvalues."""
        return Update(_even(self.gramian_of(view).diagonal(), self.power))


class NTKMTLSR(Balancer):
    """As `NTKMTL`, with eigenvalues read at the shared features: about the cost of a plain step.

    Choose it over `NTKMTL` for many tasks or a costly trunk. It needs `features=`.

        ω_k = √(mean_j λ_j / λ_k), λ_k the largest eigenvalue of the kernel of n parts of the batch;  L = Σ_k ω_k L_k

    Args:
        num_parts: n, into how many parts the rows are split, at least 1.
        power: of the ratio of eigenvalues.
        skip_bad: leave a task with a NaN or infinite loss out of the step instead of raising.

    Cost: a backward from every loss to the features, and one backward of the weighted sum.

    Source: as `NTKMTL`, with the released n = 4. Gradients of parts of a batch at its features have no row in common:
        the kernel is diagonal, and its largest eigenvalue the largest squared length of a part's gradient. Each part's
        loss is the mean over its own rows, and heads get the gradient of the weighted loss, as there. Departure: the
        mean of λ and not its sum.
    """

    name: ClassVar[str] = "ntkmtl-sr"
    needs_features = True
    claims: ClassVar[frozenset[str]] = frozenset({
        "scale equivariant", "mean when agreeing", "one task is plain", "zero is harmless",
    })  # fmt: skip
    golden: ClassVar[tuple[Golden, ...]] = (
        Golden(
            ((3.0, 0.0, 0.0, 0.0), (0.0, 4.0, 1.0, 1.0)),
            (3 * (12.5 / 9) ** 0.5, 4 * (12.5 / 16) ** 0.5, (12.5 / 16) ** 0.5, (12.5 / 16) ** 0.5),
            "by hand: four rows are four parts; λ = 9 and 16",
        ),
    )

    def __init__(self, *, num_parts: int = 4, power: float = 0.5, skip_bad: bool = False) -> None:
        super().__init__(skip_bad=skip_bad)
        if num_parts < 1:
            message = f"NTKMTLSR got num_parts={num_parts}; at least 1 was expected. The paper's number is 4."
            raise RequestError(message)
        self.num_parts, self.power = num_parts, power

    def update(self, view: View) -> Update:
        """Weights that even out the eigenvalues."""
        if view.features is None:
            message = "NTKMTLSR reads gradients at the shared features. Pass features=z, or use NTKMTL with shared=."
            raise RequestError(message)
        parts = [_part_squares(saliency, self.num_parts) for saliency in view.saliency]
        largest = torch.stack(parts).sum(dim=0).amax(dim=1)
        return Update(_even(largest, self.power), heads=True)


def _part_squares(saliency: Tensor, num_parts: int) -> Tensor:
    """Squared lengths (T, n) of the gradients of the parts' mean losses, from gradients (T, B, ...) of the batch's."""
    num_rows = saliency.shape[1]
    squares = (
        saliency.double().abs().square().flatten(2).sum(dim=2) if saliency.ndim > 2 else saliency.double().square()
    )
    chunks = [chunk.sum(dim=1) * (num_rows / chunk.shape[1]) ** 2 for chunk in squares.chunk(num_parts, dim=1)]
    found = torch.stack(chunks, dim=1)
    return torch.nn.functional.pad(found, (0, num_parts - found.shape[1]))


def _even(eigenvalues: Tensor, power: float) -> Tensor:
    """(mean λ / λ_k)^power; one for tasks without a gradient, which do not count in the mean."""
    alive = eigenvalues > 0
    mean = eigenvalues.sum() / alive.sum().clamp(min=1)
    return torch.where(alive, (mean / eigenvalues.clamp(min=1e-300)) ** power, torch.ones_like(eigenvalues))
