"""Rows that belong to one task each: one backward for all tasks, and the same numbers as one backward a task."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from motet.balance import UPGrad
from motet.balance.engine._layers import EmbeddingLayer
from motet.balance.engine._owned import OwnedLinearLayer
from motet.balance.engine._passes import Passes
from motet.balance.engine._plans import _Reshaped

WEIGHTS = torch.tensor([0.5, 2.0, 0.25], dtype=torch.float64)
SIZES = (3, 5, 4)
STARTS = (0, 3, 8)
Read = Callable[[Tensor], list[Tensor]]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def masks() -> list[Tensor]:
    owners = torch.arange(12) % 3
    return [owners == task for task in range(3)]


READS: dict[str, Read] = {
    "slices": lambda z: [z[start : start + size] for start, size in zip(STARTS, SIZES, strict=True)],
    "slices from the end": lambda z: [z[:-8], z[-8:-3], z[-3:]],
    "steps": lambda z: [z[task::3] for task in range(3)],
    "split by sizes": lambda z: list(z.split(list(SIZES))),
    "even split": lambda z: list(z.split(4)),
    "numbers": lambda z: [z[mask.nonzero().flatten()] for mask in masks()],
    "masks": lambda z: [z[mask] for mask in masks()],
    "index_select": lambda z: [z.index_select(0, mask.nonzero().flatten()) for mask in masks()],
}


class Normed(nn.Module):
    """A convolutional trunk with norms that keep images apart."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, stride=2, bias=False)
        self.norm, self.last = nn.GroupNorm(2, 4), nn.LayerNorm(4)

    def forward(self, images: Tensor) -> Tensor:
        hidden = torch.relu(self.norm(self.first(images)))
        return self.last(torch.tanh(self.second(hidden)).mean(dim=(2, 3)))


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 6, padding_idx=0)
        self.body = nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0, batch_first=True)

    def forward(self, words: Tensor) -> Tensor:
        return self.body(self.table(words)).mean(dim=1)


TRUNKS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "mlp": (
        lambda: nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 9), nn.GELU(), nn.Linear(9, 5)),
        random(12, 6),
    ),
    "wide": (lambda: nn.Sequential(nn.Linear(6, 40), nn.SiLU(), nn.Linear(40, 40, bias=False)), random(12, 6)),
    "convolution": (Normed, random(12, 2, 7, 7)),
    "words": (Words, torch.randint(0, 9, (12, 5), generator=torch.Generator().manual_seed(1))),
}  # fmt: skip


def losses_of(rows: list[Tensor], heads: nn.ModuleList) -> dict[str, Tensor]:
    return {str(task): head(part).square().mean() for task, (head, part) in enumerate(zip(heads, rows, strict=True))}


def build(name: str) -> tuple[nn.Module, nn.ModuleList, Tensor]:
    torch.manual_seed(0)
    make, inputs = TRUNKS[name]
    trunk = make().double()
    width = trunk(inputs[:2]).shape[1]
    return trunk, nn.ModuleList([nn.Linear(width, 2) for _ in range(3)]).double(), inputs


def check(losses: dict[str, Tensor], shared: list[Tensor], heads: nn.ModuleList, *, owned: bool = True) -> None:
    """Everything that the engine gives, against one plain backward a task."""
    plain = [torch.autograd.grad(loss, shared, retain_graph=True, materialize_grads=True) for loss in losses.values()]
    rows = torch.stack([torch.cat([grad.flatten() for grad in grads]) for grads in plain])
    own = torch.autograd.grad(sum(losses.values()), list(heads.parameters()), retain_graph=True)
    passes = Passes(losses, shared)
    kinds = {type(layer.core) for layer in passes.layers}
    assert (OwnedLinearLayer in kinds) == owned
    torch.testing.assert_close(passes.gramian(), rows @ rows.T)
    torch.testing.assert_close(passes.jacobian(), rows)
    found = passes.combine(WEIGHTS)
    torch.testing.assert_close(torch.cat([found[id(p)].flatten() for p in shared]), WEIGHTS @ rows)
    for leaf, grad in zip(heads.parameters(), own, strict=True):
        torch.testing.assert_close(passes.own_grads[id(leaf)], grad)


@pytest.mark.parametrize("read", READS)
def test_one_forward_whose_losses_read_rows_of_their_own(read: str) -> None:
    trunk, heads, inputs = build("mlp")
    check(losses_of(READS[read](trunk(inputs)), heads), list(trunk.parameters()), heads)


@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
@pytest.mark.parametrize("name", TRUNKS)
def test_every_trunk_that_keeps_rows_apart(name: str) -> None:
    trunk, heads, inputs = build(name)
    check(losses_of(READS["masks"](trunk(inputs)), heads), list(trunk.parameters()), heads)


@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
@pytest.mark.parametrize("name", TRUNKS)
def test_one_forward_a_task(name: str) -> None:
    trunk, heads, inputs = build(name)
    rows = [trunk(part) for part in READS["split by sizes"](inputs)]
    check(losses_of(rows, heads), list(trunk.parameters()), heads)


def test_labels_that_are_masked_in_the_loss_count_as_rows_of_one_task() -> None:
    trunk, heads, inputs = build("mlp")
    z = trunk(inputs)
    losses = {
        str(task): (head(z).square().sum(dim=1) * mask).sum() / mask.sum()
        for task, (head, mask) in enumerate(zip(heads, masks(), strict=True))
    }
    check(losses, list(trunk.parameters()), heads)


@pytest.mark.parametrize("case", ["batch norm", "a row of two tasks", "an unknown operation"])
def test_what_does_not_keep_rows_apart_is_read_as_ever(case: str) -> None:
    trunk, heads, inputs = build("mlp")
    rows = READS["masks"]
    if case == "batch norm":
        trunk = nn.Sequential(trunk, nn.BatchNorm1d(5).double())
    if case == "an unknown operation":
        trunk = nn.Sequential(trunk, nn.Softplus(), Centred())
    z = trunk(inputs)
    parts = rows(z) if case != "a row of two tasks" else [z[:5], z[4:8], z[8:]]
    check(losses_of(parts, heads), list(trunk.parameters()), heads, owned=False)


class Centred(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return z - z.mean(dim=0)


def test_one_step_equals_a_step_with_one_backward_a_task() -> None:
    trunk, heads, inputs = build("convolution")
    slow_trunk, slow_heads = copy.deepcopy(trunk), copy.deepcopy(heads)
    step = UPGrad().backward(losses_of(READS["masks"](trunk(inputs)), heads), shared=trunk.parameters())
    weights = torch.tensor(list(step.weights.values()), dtype=torch.float64)
    losses = losses_of(READS["masks"](slow_trunk(inputs)), slow_heads)
    sum(w * x for w, x in zip(weights, losses.values(), strict=True)).backward(
        inputs=list(slow_trunk.parameters()), retain_graph=True
    )
    sum(losses.values()).backward(inputs=list(slow_heads.parameters()))
    for found, expected in zip(
        [*trunk.parameters(), *heads.parameters()], [*slow_trunk.parameters(), *slow_heads.parameters()], strict=True
    ):
        torch.testing.assert_close(found.grad, expected.grad)


def test_no_gradient_is_as_large_as_tasks_times_rows() -> None:
    trunk, heads, inputs = build("words")
    layers = Passes(losses_of(READS["masks"](trunk(inputs)), heads), list(trunk.parameters())).layers
    assert all(layer.deltas.ndim == 2 for layer in layers if isinstance(layer.core, OwnedLinearLayer))
    assert any(isinstance(layer, EmbeddingLayer) for layer in layers)
    assert not any(isinstance(layer, _Reshaped) for layer in layers)
