"""Independent component alignment (Aligned-MTL)."""

from typing import ClassVar, Literal

import torch

from motet._errors import RequestError
from motet.balance._claims import Golden
from motet.balance.engine._sketch import Source
from motet.balance.engine._update import Update
from motet.balance.engine._view import View
from motet.balance.parts._gramian_method import GramianBalancer
from motet.balance.parts._solvers import precision

Scale = Literal["min", "median", "rmse"]


class AlignedMTL(GramianBalancer):
    """Makes the gradients' principal components equally long: neither conflict nor dominance is left in the sum.

    Choose it for a stable system of gradients with weights of the tasks still meaningful. Directions in which gradients
    are near to dependent grow: with the scale "min" all others shrink to them.

        G = V Λ Vᵀ,  B = √σ V Λ^(−1/2) Vᵀ over λ > 0,  d = Jᵀ B 1;   σ = min λ, median λ or mean λ

    Args:
        scale: σ: "min", "median" or "rmse".
        gramian: "exact"; or "sketch" or a `Sketch`, for an estimate from part of the rows.
        skip_bad: leave a task with a NaN or infinite loss out of the step instead of raising.

    Cost: the Gramian, and one eigendecomposition (T, T). With `features=`, Aligned-MTL-UB.

    Source: Senushkin et al., Independent Component Alignment for Multi-Task Learning, CVPR 2023, algorithm 1 with
        the released code's scale "min" and preferences of one. Departure: eigenvalues count as zero up to the rounding
        of the Gramian as it was computed, and not of float32. Heads keep their own gradient.
    """

    name: ClassVar[str] = "aligned-mtl"
    claims: ClassVar[frozenset[str]] = frozenset({
        "scale equivariant", "mean when agreeing", "one task is plain", "zero is harmless",
    })  # fmt: skip
    golden: ClassVar[tuple[Golden, ...]] = (
        Golden(((1.0, 0.0), (0.0, 2.0)), (1.0, 1.0), "by hand: orthogonal gradients, each of the shorter's length"),
        Golden(((1.0, 1.0), (1.0, 1.0)), (2.0, 2.0), "by hand: one component, the sum"),
    )

    def __init__(self, *, scale: Scale = "min", gramian: Source = "exact", skip_bad: bool = False) -> None:
        super().__init__(gramian=gramian, skip_bad=skip_bad)
        if scale not in {"min", "median", "rmse"}:
            message = f"AlignedMTL got scale={scale!r}; pass 'min', 'median' or 'rmse'."
            raise RequestError(message)
        self.scale = scale

    def update(self, view: View) -> Update:
        """The weights of the aligned gradients' sum."""
        gramian = self.gramian_of(view).cpu()
        largest = gramian.diagonal().max()
        if float(largest) <= 0:
            return Update(torch.ones_like(view.losses))
        values, vectors = torch.linalg.eigh(gramian / largest)
        kept = values > 10 * precision(view) * len(values)
        values, vectors = values[kept], vectors[:, kept]
        size = {"min": values[0], "median": values.median(), "rmse": values.mean()}[self.scale]
        weights = vectors @ ((size / values).sqrt() * vectors.sum(dim=0))
        return Update(weights.to(view.gramian))
