"""Gradient sign dropout (GradDrop)."""

from typing import ClassVar

import torch
from torch import Tensor

from motet.balance._balancer import Balancer, Update
from motet.balance._claims import Golden
from motet.balance.engine._view import View


class GradDrop(Balancer):
    """Keeps, at every coordinate, either the positive gradients or the negative ones, by a draw.

    Choose it where coordinates disagree in sign and a sum would stall at joint minima that are none. With `features=`
    signs are compared for every feature over the batch, and the cost is one pass through the trunk.

        v_k = Σ_b sign(z_b) ∂L_k/∂z_b;  𝒫 = ½ (1 + Σ_k v_k / Σ_k |v_k|);  u ~ U[0, 1)
        d = Σ_k (ℓ + (1 − ℓ) M_k) g_k,   M_k = 1[u < 𝒫] 1[v_k > 0] + 1[u ≥ 𝒫] 1[v_k < 0]

    Args:
        leak: ℓ, the part of a task's gradient that is never dropped.
        seed: of the draws.
        skip_bad: leave a task with a NaN or infinite loss out of the step instead of raising.

    Cost: with features, one backward pass through the trunk and one through each head; with shared parameters, T
        backward passes and (T, P) numbers in memory.

    Source: Chen et al., Just Pick a Sign: Optimizing Deep Multitask Models with Gradient Sign Dropout, NeurIPS 2020,
        Algorithm 1, with leak 0. Departures: at shared parameters, which the paper does not treat, v_k is the gradient
        itself, element by element; draws are a function of the seed and a saved step count, so that a resumed run goes
        on exactly.
    """

    name: ClassVar[str] = "graddrop"
    claims: ClassVar[frozenset[str]] = frozenset({
        "scale equivariant", "mean when agreeing", "one task is plain", "zero is harmless"
    })  # fmt: skip
    golden: ClassVar[tuple[Golden, ...]] = (
        Golden(((2.0, -1.0, 0.0), (3.0, -4.0, 0.0)), (5.0, -5.0, 0.0), "by hand: signs agree, nothing is dropped"),
    )

    def __init__(self, *, leak: float = 0.0, seed: int = 0, skip_bad: bool = False) -> None:
        super().__init__(skip_bad=skip_bad)
        self.leak = leak
        self.seed = seed
        self.steps: Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def update(self, view: View) -> Update:
        """The gradients that survive, summed."""
        generator = torch.Generator(view.losses.device)
        generator.manual_seed((self.seed * 1_000_003 + int(self.steps)) % 2**31)
        self.steps += 1
        if view.features is None:
            rows = view.jacobian
            return Update(direction=self._survivors(rows, rows, generator))
        parts = [
            self._survivors(part, (torch.sign(tensor.detach()) * part).sum(dim=1, keepdim=True), generator).flatten()
            for tensor, part in zip(view.features, view.saliency, strict=True)
        ]
        return Update(direction=torch.cat(parts))

    def reset(self) -> None:
        """Starts the stream of draws again."""
        self.steps.zero_()

    def _survivors(self, grads: Tensor, votes: Tensor, generator: torch.Generator) -> Tensor:
        """The sum over tasks of the gradients (T, ...) whose vote has the sign that the draw favours."""
        total = votes.abs().sum(dim=0)
        purity = torch.where(total > 0, 0.5 * (1.0 + votes.sum(dim=0) / total.clamp(min=_TINY)), 0.5)
        draw = torch.rand(purity.shape, generator=generator, dtype=torch.float32, device=purity.device)
        kept = torch.where(draw < purity, votes > 0, votes < 0).to(grads.dtype)
        return (grads * (self.leak + (1.0 - self.leak) * kept)).sum(dim=0)


_TINY = 1e-38
