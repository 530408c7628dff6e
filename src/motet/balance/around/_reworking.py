"""Wrappers that change the gradient which the method inside found."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from motet.balance.around._given import direction_of, head_weights
from motet.balance.around._wrapper import Wrapper
from motet.balance.engine._apply import grads_set_aside
from motet.balance.engine._batch import Batch
from motet.balance.engine._update import Step, Update
from motet.balance.engine._view import View


class Reworking(Wrapper):
    """Reworks the new gradient of every parameter of the model, heads included; what `.grad` held before stays.

    Scaled gradients that overflowed are left as they are, for the scaler to find.

    Inside a wrapper that hands gradients over, such as `FMTL`, it reworks the shared direction alone.
    """

    @abstractmethod
    def rework(self, grads: Sequence[Tensor]) -> list[Tensor]:
        """The gradients that take the place of these; of a sparse one, its values."""

    def take(self, batch: Batch) -> Step:
        """The step of the method inside, reworked."""
        leaves = batch.leaves()
        with grads_set_aside(leaves):
            step = self.inner.take(batch)
            found = [
                (leaf, leaf.grad.coalesce() if leaf.grad.is_sparse else leaf.grad)
                for leaf in leaves
                if leaf.grad is not None
            ]
            values = [grad.values() if grad.is_sparse else grad for _, grad in found]
            if found and (batch.scale is None or all(bool(torch.isfinite(part).all()) for part in values)):
                for (leaf, grad), part in zip(found, self._reworked(values, batch.scale), strict=True):
                    leaf.grad = _like(grad, part.to(grad.dtype))
        return step

    def _reworked(self, values: Sequence[Tensor], scale: float | None) -> list[Tensor]:
        """Gradients reworked as they are without a scale."""
        if scale is None:
            return self.rework(values)
        wide = [part.float() if part.dtype in {torch.float16, torch.bfloat16} else part for part in values]
        return [part * scale for part in self.rework([part / scale for part in wide])]

    def update(self, view: View) -> Update:
        """The update of the method inside, its shared direction reworked."""
        update = self.inner.update(view)
        direction = self.rework([direction_of(update, view.jacobian)])[0]
        heads = head_weights(update)
        return Update(direction=direction, heads=False if heads is None else heads)


def _like(grad: Tensor, values: Tensor) -> Tensor:
    if not grad.is_sparse:
        return values
    return torch.sparse_coo_tensor(grad.indices(), values, grad.shape, is_coalesced=True, check_invariants=False)
