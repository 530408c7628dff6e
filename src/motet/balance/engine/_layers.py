"""Inner products of task gradients, layer by layer, from the gradients at the layer's output.

For a linear layer the weight gradient of task k is δ_kᵀ a, with δ_k (R, out) the gradient at its output and a (R, in)
its input. Inner products of such gradients need a only through K = a aᵀ = L Lᵀ:

    ⟨δ_iᵀ a, δ_jᵀ a⟩ = ⟨δ_iᵀ L, δ_jᵀ L⟩

which is exact, and cheaper than forming the weight gradients when there are fewer rows than inputs.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

BLOCK = 64  # columns of a triangular factor that are multiplied at once
CHUNK = 1 << 24  # numbers of (T, part of one layer) held at once


class Layer(ABC):
    """One group of parameters used together, with what is needed of every task's gradient there."""

    @property
    def core(self) -> "Layer":
        """The layer whose inner products these are, where this one only lays it out anew."""
        return self

    @property
    def keys(self) -> tuple[int, ...]:
        """Ids of its parameters."""
        return tuple(self.rows())

    @abstractmethod
    def gramian(self) -> Tensor:
        """Inner products (T, T) of the tasks' gradients at these parameters, float64."""

    @abstractmethod
    def combine(self, weights: Tensor) -> dict[int, Tensor]:
        """The weighted sum of the tasks' gradients, by the parameter's id."""

    @abstractmethod
    def rows(self) -> dict[int, Tensor]:
        """Every task's gradient (T, ...), by the parameter's id."""


@dataclass
class LinearLayer(Layer):
    """A matrix, and perhaps a bias, applied to rows.

    Args:
        deltas: (T, R, out) gradients at the output.
        inputs: (R, in).
        weight: id of the matrix, or None where it is not shared.
        bias: id of the bias, or None.
        transposed: the parameter is laid out (in, out) and not (out, in).
    """

    deltas: Tensor
    inputs: Tensor
    weight: int | None
    bias: int | None
    transposed: bool = False

    @property
    def keys(self) -> tuple[int, ...]:
        """See `Layer`."""
        return tuple(key for key in (self.weight, self.bias) if key is not None)

    def gramian(self) -> Tensor:
        """See `Layer`; by the cheaper of the factor of a aᵀ and of forming weight gradients part by part."""
        num_tasks, num_rows, width = self.deltas.shape
        if self.weight is None:
            return inner(self.deltas.sum(dim=1))
        inputs = self._inputs()
        num_inputs = inputs.shape[1]
        by_factor = num_rows * num_rows * (num_inputs + num_tasks * width) + num_tasks**2 * width * num_rows
        by_weights = num_tasks * width * num_inputs * (num_rows + num_tasks)
        gram = torch.zeros(num_tasks, num_tasks, dtype=torch.float64, device=self.deltas.device)
        if num_rows <= num_inputs and by_factor < by_weights:
            factor = _factor(inputs)
            for start in range(0, num_rows, BLOCK):
                # L is lower triangular: its columns from `start` on are zero in the rows above.
                gram += self._part(slice(start, None), factor[start:, start : start + BLOCK])
            return gram
        columns = max(1, CHUNK // (num_tasks * width))
        for start in range(0, num_inputs, columns):
            gram += self._part(slice(None), inputs[:, start : start + columns])
        return gram

    def _part(self, rows: slice, right: Tensor) -> Tensor:
        """Inner products of rightᵀ δ_k over some of the rows."""
        deltas = self.deltas[:, rows]
        return inner((right.T @ deltas).flatten(1))

    def combine(self, weights: Tensor) -> dict[int, Tensor]:
        """See `Layer`; one product whatever the number of tasks."""
        delta = torch.tensordot(weights.to(self.deltas), self.deltas, dims=1)
        found = {}
        if self.weight is not None:
            found[self.weight] = self.inputs.T @ delta if self.transposed else delta.T @ self.inputs
        if self.bias is not None:
            found[self.bias] = delta.sum(dim=0)
        return found

    def rows(self) -> dict[int, Tensor]:
        """See `Layer`."""
        found = {}
        if self.weight is not None:
            grads = self.deltas.transpose(1, 2) @ self.inputs
            found[self.weight] = grads.transpose(1, 2) if self.transposed else grads
        if self.bias is not None:
            found[self.bias] = self.deltas.sum(dim=1)
        return found

    def _inputs(self) -> Tensor:
        """The inputs, with a column of ones where the bias is shared: its gradient is that of a matrix column."""
        if self.bias is None:
            return self.inputs
        return torch.cat([self.inputs, self.inputs.new_ones(len(self.inputs), 1)], dim=1)


@dataclass
class EmbeddingLayer(Layer):
    """A table of rows that are looked up: only rows that were looked up have a gradient.

    Args:
        deltas: (T, R, dim) gradients at the looked-up rows.
        indices: (R,) which row of the table.
        weight: id of the table.
        num_rows: of the table.
        sparse: whether the table's gradient is to be sparse, as `nn.Embedding(sparse=True)` has it.
    """

    deltas: Tensor
    indices: Tensor
    weight: int
    num_rows: int
    sparse: bool = False

    def _sums(self, deltas: Tensor) -> tuple[Tensor, Tensor]:
        used, places = torch.unique(self.indices, return_inverse=True)
        sums = deltas.new_zeros(len(deltas), len(used), deltas.shape[-1])
        return used, sums.index_add_(1, places, deltas)

    def gramian(self) -> Tensor:
        """See `Layer`; over the rows that were used alone."""
        return inner(self._sums(self.deltas)[1].flatten(1))

    def combine(self, weights: Tensor) -> dict[int, Tensor]:
        """See `Layer`."""
        delta = torch.tensordot(weights.to(self.deltas), self.deltas, dims=1)
        size = (self.num_rows, delta.shape[-1])
        if self.sparse:
            return {
                self.weight: torch.sparse_coo_tensor(self.indices.unsqueeze(0), delta, size, check_invariants=False)
            }
        table = delta.new_zeros(size)
        return {self.weight: table.index_add_(0, self.indices, delta)}

    def rows(self) -> dict[int, Tensor]:
        """See `Layer`."""
        used, sums = self._sums(self.deltas)
        table = sums.new_zeros(len(sums), self.num_rows, sums.shape[-1])
        return {self.weight: table.index_copy_(1, used, sums)}


@dataclass
class PlainLayer(Layer):
    """A parameter whose gradients are held as they are: small ones, and whatever has no faster way.

    Args:
        grads: (T, ...) every task's gradient.
        parameter: its id.
    """

    grads: Tensor
    parameter: int

    def gramian(self) -> Tensor:
        """See `Layer`."""
        return inner(self.grads.flatten(1))

    def combine(self, weights: Tensor) -> dict[int, Tensor]:
        """See `Layer`."""
        return {self.parameter: torch.tensordot(weights.to(self.grads), self.grads, dims=1)}

    def rows(self) -> dict[int, Tensor]:
        """See `Layer`."""
        return {self.parameter: self.grads}


def patches(
    images: Tensor,
    kernel: tuple[int, int],
    *,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
) -> Tensor:
    """A convolution's inputs (N, C, H, W) as rows (N · places, C · kernel) of a linear layer."""
    unfolded = functional.unfold(images, kernel, dilation=dilation, padding=padding, stride=stride)
    return unfolded.transpose(1, 2).flatten(0, 1)


def _factor(inputs: Tensor) -> Tensor:
    """L with L Lᵀ = a aᵀ, formed in float64: in float32 it would cost up to 5e-4 of the result."""
    wide = inputs.double()
    kernel = wide @ wide.T
    jitter = 1e-14 * kernel.diagonal().mean().clamp(min=torch.finfo(torch.float64).tiny)
    factor, failed = torch.linalg.cholesky_ex(
        kernel + jitter * torch.eye(len(kernel), dtype=kernel.dtype, device=kernel.device)
    )
    if bool(failed):
        values, vectors = torch.linalg.eigh(kernel)
        root = vectors * values.clamp(min=0).sqrt()
        factor = torch.linalg.qr(root.T).R.T  # the same product, made lower triangular
    return factor.to(inputs.dtype)


def as_real(rows: Tensor) -> Tensor:
    """Rows (T, ...) of numbers, complex ones as pairs."""
    return (torch.view_as_real(rows) if rows.is_complex() else rows).flatten(1)


def shaped(flat: Tensor, like: Tensor) -> Tensor:
    """What `as_real` laid out, in a tensor's shape and dtype again."""
    if like.is_complex():
        return torch.view_as_complex(flat.to(like.real.dtype).reshape(*like.shape, 2).clone())
    return flat.reshape(like.shape).to(like.dtype)


def wide(values: Tensor) -> Tensor:
    """Half precision as float32."""
    return values.float() if values.dtype in {torch.bfloat16, torch.float16} else values


def grouped(products: Tensor, left: Tensor, right: Tensor, num_tasks: int) -> Tensor:
    """Sums (T, T) in float64 of products (R, S) of rows, over the rows of each pair of tasks.

    Args:
        products: of rows with rows.
        left: (R,) the task of each row.
        right: (S,) the task of each column.
        num_tasks: T.
    """
    wide_products = products.double()
    rows = wide_products.new_zeros(num_tasks, products.shape[1]).index_add_(0, left, wide_products)
    return rows.new_zeros(num_tasks, num_tasks).index_add_(1, right, rows)


def inner(rows: Tensor) -> Tensor:
    """Inner products (T, T) of rows, float64."""
    rows = as_real(rows)
    return (rows @ rows.T).double() if rows.dtype == torch.float64 else (rows.float() @ rows.float().T).double()
