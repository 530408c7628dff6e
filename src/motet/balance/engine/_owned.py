"""Layers whose rows belong to one task each: separate data sets, or rows that have one task's label.

With δ (R, out) and inputs a (R, in) together for all tasks, the gradient of task k is the sum over its own rows, and

    ⟨g_i, g_j⟩ = Σ over rows b of i and c of j of (a_b · a_c) (δ_b · δ_c)

so T tasks cost one backward, and no gradient of a weight is formed for it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from motet.balance.engine._layers import CHUNK, Layer, grouped, inner


@dataclass
class OwnedLinearLayer(Layer):
    """A matrix, and perhaps a bias, applied to rows of one task each.

    Args:
        deltas: (R, out) gradients at the output.
        owners: (R,) each row's task.
        inputs: (R, in).
        num_tasks: T.
        weight: id of the matrix.
        bias: id of the bias, or None.
        transposed: the parameter is laid out (in, out) and not (out, in).
    """

    deltas: Tensor
    owners: Tensor
    inputs: Tensor
    num_tasks: int
    weight: int
    bias: int | None
    transposed: bool = False

    @property
    def keys(self) -> tuple[int, ...]:
        """See `Layer`."""
        return (self.weight,) if self.bias is None else (self.weight, self.bias)

    def gramian(self) -> Tensor:
        """See `Layer`; by the cheaper of products of rows and of the weight gradients, part by part."""
        num_rows, width = self.deltas.shape
        num_inputs = self.inputs.shape[1]
        by_rows = num_rows**2 * (num_inputs + width)
        by_weights = num_rows * num_inputs * width + self.num_tasks**2 * num_inputs * width
        return self._by_rows() if by_rows < by_weights else self._by_weights()

    def _by_rows(self) -> Tensor:
        bias = 0 if self.bias is None else 1
        total = torch.zeros(self.num_tasks, self.num_tasks, dtype=torch.float64, device=self.deltas.device)
        size = max(1, CHUNK // len(self.deltas))
        for start in range(0, len(self.deltas), size):
            some = slice(start, start + size)
            products = (self.inputs[some] @ self.inputs.T + bias) * (self.deltas[some] @ self.deltas.T)
            total += grouped(products, self.owners[some], self.owners, self.num_tasks)
        return total

    def _by_weights(self) -> Tensor:
        total = inner(self._sums(self.deltas) * (self.bias is not None))
        columns = max(1, CHUNK // (self.num_tasks * self.deltas.shape[1]))
        for start in range(0, self.inputs.shape[1], columns):
            total = total + inner(self._grads(self.inputs[:, start : start + columns]).flatten(1))
        return total

    def _grads(self, inputs: Tensor) -> Tensor:
        """Every task's δᵀ a (T, out, in)."""
        found = self.deltas.new_zeros(self.num_tasks, self.deltas.shape[1], inputs.shape[1])
        for task in range(self.num_tasks):
            rows = (self.owners == task).nonzero().flatten()
            torch.mm(self.deltas[rows].T, inputs[rows], out=found[task])
        return found

    def _sums(self, rows: Tensor) -> Tensor:
        return rows.new_zeros(self.num_tasks, rows.shape[1]).index_add_(0, self.owners, rows)

    def combine(self, weights: Tensor) -> dict[int, Tensor]:
        """See `Layer`; one product over all rows."""
        delta = self.deltas * weights.to(self.deltas)[self.owners].unsqueeze(1)
        found = {self.weight: self.inputs.T @ delta if self.transposed else delta.T @ self.inputs}
        if self.bias is not None:
            found[self.bias] = delta.sum(dim=0)
        return found

    def rows(self) -> dict[int, Tensor]:
        """See `Layer`."""
        grads = self._grads(self.inputs)
        found = {self.weight: grads.transpose(1, 2) if self.transposed else grads}
        if self.bias is not None:
            found[self.bias] = self._sums(self.deltas)
        return found
