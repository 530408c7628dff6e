"""Similarity-aware momentum gradient surgery (SAM-GS)."""

from typing import ClassVar

import torch
from torch import Tensor

from motet.balance._balancer import Balancer, Update
from motet.balance._claims import Golden
from motet.balance.engine._view import View
from motet.balance.parts._coordinates import gradient_rows, inverse, norms
from motet.balance.parts._per_task import PerTask


class SAMGS(Balancer):
    """Equalises the gradients' lengths where they differ, and lets momentum scale coordinates where they are alike.

    Choose it when tasks conflict by size rather than by angle.

        ψ_ij = 2 ‖g_i‖ ‖g_j‖ / (‖g_i‖² + ‖g_j‖²);  Ψ = mean over pairs of ψ_ij
        m_k ← β₁ m_k + (1 − β₁) g_k;  h ← β₂ h + (1 − β₂) (1 − Ψ)² + 1e-8;  m̂, ĥ with the bias taken out
        Ψ < γ:  d = K Σ_k (mean_j ‖g_j‖ / ‖g_k‖) g_k;   else:  d = K Σ_k (|m̂_k| / √ĥ) ∘ g_k

    State belongs to a coordinate: with `features=` that is a row and feature, which is right only where
    the rows are the same at every step, as in training on the full batch.

    Args:
        gamma: γ, the similarity from which momentum takes over.
        beta1: β₁ of the running gradients.
        beta2: β₂ of the running dissimilarity.
        skip_bad: leave a task with a NaN or infinite loss out of the step instead of raising.

    Raises:
        RequestError: from `backward`, where the shared parameters are not those of the steps before.

    Cost: T backward passes; (T, P) numbers kept from step to step, and as many again within the step.

    Source: Borsani et al., Gradient Similarity Surgery in Multi-Task Deep Learning, 2025, with Ψ, γ = 0.7 and the other
        defaults of the released code (paper: the mean over all T² pairs; γ = 0.1, tuned 0.9). Departures: gradients are
        not clipped here (released: to norm 1); one task alone follows its own gradient.
    """

    name: ClassVar[str] = "sam-gs"
    place = "parameters"  # state belongs to a parameter; a row of a batch is another one next time
    claims: ClassVar[frozenset[str]] = frozenset({"one task is plain"})
    golden: ClassVar[tuple[Golden, ...]] = (
        Golden(((1.0, 0.0), (0.0, 7.0)), (8.0, 8.0), "by hand: Ψ = 14/50 < γ; both at the mean length 4, times 2"),
    )

    def __init__(self, *, gamma: float = 0.7, beta1: float = 0.9, beta2: float = 0.99, skip_bad: bool = False) -> None:
        super().__init__(skip_bad=skip_bad)
        self.gamma, self.beta1, self.beta2 = gamma, beta1, beta2
        self.running, self.counts = PerTask(), PerTask()
        self.dissimilarity: Tensor
        self.steps: Tensor
        self.register_buffer("dissimilarity", torch.zeros((), dtype=torch.float64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def update(self, view: View) -> Update:
        """Gradients of one length, or scaled by momentum."""
        rows = gradient_rows(view)
        lengths = norms(rows)
        counts = self.counts.rows(view.names, lengths.new_zeros(())) + 1
        running = self.running.rows(view.names, torch.zeros_like(rows[0]))
        running = self.beta1 * running + (1 - self.beta1) * rows
        self.running.set(view.names, running)
        self.counts.set(view.names, counts)
        if len(rows) == 1:
            return Update(direction=rows[0])
        similarity = magnitude_similarity(lengths)
        self.steps += 1
        self.dissimilarity.mul_(self.beta2).add_((1 - self.beta2) * (1 - similarity) ** 2 + 1e-8)
        if similarity < self.gamma:
            return Update(direction=(len(rows) * lengths.mean() * inverse(lengths)).to(rows) @ rows)
        scale = (float(self.dissimilarity) / (1 - self.beta2 ** int(self.steps))) ** -0.5
        corrections = (len(rows) * scale / (1 - self.beta1**counts)).to(rows).unsqueeze(1)
        return Update(direction=(running.abs() * corrections * rows).sum(dim=0))

    def reset(self) -> None:
        """Forgets the running gradients and dissimilarity."""
        self.running.reset()
        self.counts.reset()
        self.dissimilarity.zero_()
        self.steps.zero_()


def magnitude_similarity(lengths: Tensor) -> float:
    """The mean of ψ over pairs: 1 for equal lengths, towards 0 for ever more different ones."""
    scaled = lengths / lengths.max().clamp(min=torch.finfo(lengths.dtype).tiny)
    squares = scaled.unsqueeze(0) ** 2 + scaled.unsqueeze(1) ** 2
    pairs = torch.where(squares > 0, 2 * scaled.unsqueeze(0) * scaled.unsqueeze(1) / squares.clamp(min=1e-300), 1.0)
    rows, columns = torch.triu_indices(len(lengths), len(lengths), offset=1)
    return float(pairs[rows, columns].mean())
