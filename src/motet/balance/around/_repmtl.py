"""Representation-level task saliency (Rep-MTL)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from motet._errors import RequestError
from motet.balance._balancer import Balancer
from motet.balance._equal import EqualWeighting
from motet.balance.around._task_gradients import overflowed
from motet.balance.around._wrapper import Wrapper, check_ready
from motet.balance.engine._apply import add_grad, averaging
from motet.balance.engine._batch import Batch
from motet.balance.engine._setting import OverflowedError, Setting
from motet.balance.engine._update import Step


class RepMTL(Wrapper):
    """Adds two regularisers of the shared features: each row's place belongs to few tasks, and tasks keep in touch.

    Choose it where tasks share a strong backbone and no method of weights helps any more: it does not settle
    conflicts, it shapes the representation so that fewer arise.

        S_k = ∂L_k/∂z;   S̄_k its mean over channels;   P_k = |S̄_k| / Σ_j |S̄_j| at each row and place
        R_tsr = mean over rows and places of −Σ_k P_k log P_k
        M_k = S_k S_kᵀ a row, between channels;   A a row's saliency averaged over places, one column a task
        R_csa = −mean_b log( Σ_k exp(cos(A_b A_bᵀ, M_{b,k}) / τ) / Σ_{c≠b} exp(cos(A_b A_bᵀ, A_c A_cᵀ) / τ) )
        gradient: of the method inside + ∂(λ_tsr R_tsr + λ_csa R_csa), through z and the heads

    Features are (B, F), tokens (B, S, F) with F the channels, or maps (B, C, …); of several tensors the regularisers
    add up.

    Args:
        inner: the method that balances the losses; equal weights, as in the paper, when it is left out. It compares
            gradients at `shared` where that is given beside the features, else at the features.
        tsr: λ_tsr ≥ 0.
        csa: λ_csa ≥ 0.
        temperature: τ > 0.

    Raises:
        RequestError: a bad λ or τ; from `backward`, no features.

    Cost: that of the method inside, a backward from each loss to the features that keeps its own graph, and one
        backward through heads and trunk; no (C, C) matrix is formed. Over several processes, each gathers all
        saliencies and takes the second average of all gradients.

    Source: Wang, Li and Xu, Rep-MTL: Unleashing the Power of Representation-level Task Saliency for Multi-Task
        Learning, ICCV 2025; the authors' repository holds no code. λ = 1 lies in the range that the paper reports as
        good, 0.7 to 1.5. Choices of ours where the text leaves them open: τ = 0.5; A holds the tasks' columns side by
        side; tokens' last axis is their channels; a batch of one row has no R_csa; saliencies of zero have cosine 0.
    """

    name: ClassVar[str] = "rep-mtl"
    needs_features = True
    needs_network = True

    def __init__(
        self, inner: Balancer | None = None, *, tsr: float = 1.0, csa: float = 1.0, temperature: float = 0.5
    ) -> None:
        super().__init__(inner or EqualWeighting())
        if not 0 <= tsr < float("inf") or not 0 <= csa < float("inf") or not 0 < temperature < float("inf"):
            message = (
                f"RepMTL got tsr={tsr}, csa={csa} and temperature={temperature}; weights of 0 or more and a positive "
                "temperature were expected. Try 1, 1 and 0.5."
            )
            raise RequestError(message)
        self.tsr, self.csa, self.temperature = tsr, csa, temperature

    def take(self, batch: Batch) -> Step:
        """The step of the method inside, and the regularisers' gradient on top."""
        if batch.features is None:
            message = (
                "RepMTL reads the losses' gradients at the shared features and was given none. Pass features=z, or "
                "return (losses, z) from the closure."
            )
            raise RequestError(message)
        try:
            extra = self._extra(batch)
        except OverflowedError:
            return overflowed(batch)
        apart = batch.shared is not None and not self.inner.needs_features
        step = self.inner.take(replace(batch, features=None) if apart else batch)
        check_ready("RepMTL", step)
        with averaging(batch.setting):
            for leaf, grad in extra:
                add_grad(leaf, grad)
        return step

    def regulariser(
        self, losses: Mapping[str, Tensor], features: Sequence[Tensor], *, setting: Setting | None = None
    ) -> Tensor:
        """λ_tsr R_tsr + λ_csa R_csa of all processes' rows, a scalar with this process's graph.

        Args:
            losses: a scalar a task.
            features: shared features on the way to the losses.
            setting: the other processes, if there are any.
        """
        total = features[0].new_zeros(())
        found = [
            torch.autograd.grad(loss, list(features), create_graph=True, allow_unused=True) for loss in losses.values()
        ]
        for place, tensor in enumerate(features):
            rows = [torch.zeros_like(tensor) if grads[place] is None else grads[place] for grads in found]
            saliency = torch.stack([_channels_first(row) for row in rows])
            saliency = saliency if setting is None else setting.joined_saliency(saliency)
            if self.tsr:
                total = total + self.tsr * entropy(saliency)
            if self.csa:
                total = total + self.csa * alignment(saliency, self.temperature)
        return total

    def _extra(self, batch: Batch) -> list[tuple[Tensor, Tensor]]:
        total = self.regulariser(batch.losses, batch.features or [], setting=batch.setting)
        leaves = batch.leaves()
        grads: Sequence[Tensor | None] = [None] * len(leaves)
        if total.requires_grad:  # losses that are linear in the features have saliencies without a graph
            # Each process finds its own part of the gradient of one and the same number: their sum, not their mean.
            size = 1 if batch.ranks is None else len(batch.ranks)
            total = total * size * (1.0 if batch.scale is None else batch.scale)
            grads = torch.autograd.grad(total, leaves, retain_graph=True, allow_unused=True)
        found = [(leaf, grad) for leaf, grad in zip(leaves, grads, strict=True) if grad is not None]
        if batch.setting is not None:
            batch.setting.check_finite([grad for _, grad in found])
        return found


def entropy(saliency: Tensor) -> Tensor:
    """R_tsr of saliencies (T, B, C, N): how evenly the tasks share each row's places; nats."""
    sizes = saliency.mean(dim=2).abs()
    most = sizes.detach().amax(dim=0).clamp(min=torch.finfo(sizes.dtype).tiny)
    shares = sizes / most
    shares = shares / shares.sum(dim=0).clamp(min=1.0)
    return -(shares * shares.clamp(min=torch.finfo(sizes.dtype).tiny).log()).sum(dim=0).mean()


def alignment(saliency: Tensor, temperature: float) -> Tensor:
    """R_csa of saliencies (T, B, C, N); zero for one row, which has no other to differ from."""
    if saliency.shape[1] < 2:
        return saliency.new_zeros(())
    tasks = _unit(saliency.permute(1, 0, 2, 3))  # (B, T, C, N)
    anchors = _unit(saliency.mean(dim=3).permute(1, 2, 0))  # (B, C, T)
    # The inner product of X Xᵀ and Y Yᵀ is ‖Xᵀ Y‖²: products between channels need not be formed.
    anchor_norms = _norm(anchors.transpose(-1, -2) @ anchors)
    task_norms = _norm(_smaller_gram(tasks))
    inner = (anchors.unsqueeze(1).transpose(-1, -2) @ tasks).square().sum(dim=(-1, -2))
    towards = inner / (anchor_norms.unsqueeze(1) * task_norms)
    between = torch.einsum("bct,dcs->bdts", anchors, anchors).square().sum(dim=(-1, -2))
    between = between / (anchor_norms.unsqueeze(1) * anchor_norms.unsqueeze(0))
    others = between.masked_fill(torch.eye(len(between), dtype=torch.bool, device=between.device), -torch.inf)
    return (torch.logsumexp(others / temperature, dim=1) - torch.logsumexp(towards / temperature, dim=1)).mean()


def _channels_first(row: Tensor) -> Tensor:
    """(B, F), (B, S, F) or (B, C, …) to (B, C, N)."""
    if row.ndim == 3:
        return row.transpose(1, 2)
    return row.reshape(len(row), row.shape[1], -1) if row.ndim > 1 else row.reshape(len(row), 1, 1)


def _unit(matrices: Tensor) -> Tensor:
    """Matrices of size one or zero: cosines do not change, and tiny saliencies do not underflow when squared."""
    size = matrices.detach().abs().amax(dim=(-1, -2), keepdim=True)
    return matrices / torch.where(size > 0, size, torch.ones_like(size))


def _smaller_gram(matrices: Tensor) -> Tensor:
    wide = matrices.shape[-1] > matrices.shape[-2]
    return matrices @ matrices.transpose(-1, -2) if wide else matrices.transpose(-1, -2) @ matrices


def _norm(grams: Tensor) -> Tensor:
    """Frobenius norms; 1 for zero matrices, whose inner products are zero all the same."""
    squares = grams.square().sum(dim=(-1, -2))
    return torch.where(squares > 0, squares, torch.ones_like(squares)).sqrt()
