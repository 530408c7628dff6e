"""What a training loop may hold beside a balancer: precision, layers, parameters, and saved state of many kinds."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from motet import RequestError
from motet.balance import Balancer, Step, Update, View, from_name, methods

WEIGHTS = torch.tensor([0.5, 2.0, 0.25], dtype=torch.float64)


class Weighted(Balancer):
    """Fixed weights, after having looked at what it is told to look at."""

    name = "weighted-for-tests"

    def __init__(self, look: str = "gramian", heads: bool | Tensor = False) -> None:
        super().__init__()
        self.look, self.heads = look, heads
        self.seen = torch.zeros(0)

    def update(self, view: View) -> Update:
        self.seen = getattr(view, self.look)
        weights = WEIGHTS[: len(view.names)]
        if self.look == "jacobian":
            return Update(direction=weights.to(self.seen) @ self.seen, heads=self.heads)
        return Update(weights, heads=self.heads)


@dataclass
class Net:
    """A trunk, three heads, and their losses on one forward pass."""

    trunk: nn.Module
    heads: nn.ModuleList
    losses: dict[str, Tensor]
    features: Tensor

    @property
    def shared(self) -> list[Tensor]:
        return list(self.trunk.parameters())

    @property
    def own(self) -> list[Tensor]:
        return list(self.heads.parameters())


def losses_of(features: Tensor, heads: nn.ModuleList) -> dict[str, Tensor]:
    flat = features.flatten(1)
    flat = torch.view_as_real(flat).flatten(1) if flat.is_complex() else flat
    return {f"task {number}": head(flat).square().mean() for number, head in enumerate(heads)}


def build(trunk: nn.Module, inputs: Tensor, call: Callable[[nn.Module, Tensor], Tensor] | None = None) -> Net:
    """The net in float64, from a seed."""
    trunk = trunk.double()
    features = trunk(inputs) if call is None else call(trunk, inputs)
    width = features.flatten(1).shape[1] * (2 if features.is_complex() else 1)
    heads = nn.ModuleList([nn.Linear(width, 2) for _ in range(3)]).double()
    return Net(trunk, heads, losses_of(features, heads), features)


def flat(tensors: list[Tensor | None], like: list[Tensor]) -> Tensor:
    """Gradients side by side, complex ones as pairs of numbers; zero where there is none."""
    parts = []
    for tensor, parameter in zip(tensors, like, strict=True):
        found = torch.zeros_like(parameter) if tensor is None else tensor.to_dense().detach()
        parts.append((torch.view_as_real(found) if found.is_complex() else found).reshape(-1))
    return torch.cat(parts)


def rows_of(losses: dict[str, Tensor], parameters: list[Tensor]) -> Tensor:
    """The Jacobian by one plain backward a task."""
    return torch.stack([
        flat(list(torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)), parameters)
        for loss in losses.values()
    ])  # fmt: skip


def grads_of(parameters: list[Tensor]) -> Tensor:
    return flat([parameter.grad for parameter in parameters], parameters)


def check(net: Net, look: str = "gramian", **place: object) -> Balancer:
    """One balanced backward against plain ones; `place` says where."""
    expected, own = rows_of(net.losses, net.shared), rows_of(net.losses, net.own).sum(dim=0)
    balancer = Weighted(look)
    balancer.backward(net.losses, **place)
    torch.testing.assert_close(grads_of(net.shared), WEIGHTS @ expected)
    torch.testing.assert_close(grads_of(net.own), own)
    if look == "gramian" and "shared" in place:
        torch.testing.assert_close(balancer.seen, expected @ expected.T)
    return balancer


class Last(nn.Module):
    """The outputs of a recurrent net."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)[0]


class SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x, x, x)[0]


class Complex(nn.Module):
    """A complex layer, a complex scale, and a real matrix that meets complex numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 5)
        self.second = nn.Linear(5, 4, dtype=torch.complex128)
        self.scale = nn.Parameter(torch.randn(4, dtype=torch.complex128))
        self.third = nn.Parameter(torch.randn(4, 3))

    def forward(self, x: Tensor) -> Tensor:
        z = torch.fft.fft(self.first(x), norm="ortho")
        return (self.second(z) * self.scale) @ self.third.to(torch.complex128)

    def double(self) -> "Complex":
        self.first.double()
        self.third.data = self.third.data.double()
        return self


class Idle(nn.Module):
    """Parameters that no loss reads, and one without elements."""

    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Linear(6, 5)
        self.unused = nn.Linear(3, 3)
        self.empty = nn.Parameter(torch.zeros(0, 5))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.used(x), self.empty])


class TiedTable(nn.Module):
    """A table that is looked up and then read as a matrix, as in language models."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 6)

    def forward(self, words: Tensor) -> Tensor:
        return torch.tanh(self.table(words)) @ self.table.weight.T


ROWS = torch.randn(12, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
STEPS = ROWS.reshape(3, 4, 6)
WORDS = torch.randint(0, 9, (4, 5), generator=torch.Generator().manual_seed(3))
SIGNALS = torch.randn(3, 4, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
IMAGES = torch.randn(3, 4, 6, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
VOLUMES = torch.randn(2, 2, 4, 4, 4, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
TRUNKS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "dropout": (lambda: nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.4), nn.Linear(8, 5)), ROWS),
    "batch norm": (lambda: nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 5)), ROWS),
    "group norm": (lambda: nn.Sequential(nn.Conv2d(4, 4, 3), nn.GroupNorm(2, 4), nn.SiLU()), IMAGES),
    "lstm": (lambda: Last(nn.LSTM(6, 4, num_layers=2, batch_first=True)), STEPS),
    "gru both ways": (lambda: Last(nn.GRU(6, 4, bidirectional=True, batch_first=True)), STEPS),
    "attention": (SelfAttention, STEPS),
    "transformer": (
        lambda: nn.TransformerEncoderLayer(6, 2, 8, dropout=0.2, batch_first=True, norm_first=True),
        STEPS,
    ),
    "one axis": (lambda: nn.Sequential(nn.Conv1d(4, 5, 3, padding=1), nn.ReLU(), nn.Conv1d(5, 2, 2)), SIGNALS),
    "three axes": (lambda: nn.Sequential(nn.Conv3d(2, 3, 2), nn.ReLU(), nn.Conv3d(3, 2, 2, stride=2)), VOLUMES),
    "grouped": (lambda: nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.ReLU(), nn.Conv2d(4, 2, 1)), IMAGES),
    "dilated": (lambda: nn.Conv2d(4, 3, 3, dilation=2, padding=2, stride=(1, 2)), IMAGES),
    "same padding": (lambda: nn.Conv2d(4, 3, 3, padding="same"), IMAGES),
    "circular padding": (lambda: nn.Conv2d(4, 3, 3, padding=1, padding_mode="circular"), IMAGES),
    "transposed": (lambda: nn.Sequential(nn.ConvTranspose2d(4, 3, 3, stride=2), nn.ReLU()), IMAGES),
    "weight norm": (lambda: nn.utils.parametrizations.weight_norm(nn.Conv1d(4, 3, 3)), SIGNALS),
    "spectral norm": (lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(6, 4)), ROWS),
    "orthogonal": (lambda: nn.utils.parametrizations.orthogonal(nn.Linear(6, 4)), ROWS),
    "bilinear": (lambda: Twice(nn.Bilinear(6, 6, 3)), ROWS),
    "complex": (Complex, ROWS),
    "idle parameters": (Idle, ROWS),
    "tied table": (TiedTable, WORDS),
    "table, renormalised rows": (lambda: nn.Embedding(9, 6, max_norm=1.0), WORDS),
    "table, scaled by frequency": (lambda: nn.Embedding(9, 6, scale_grad_by_freq=True), WORDS),
    "sparse table": (lambda: nn.Sequential(nn.Embedding(9, 6, sparse=True), nn.Linear(6, 3)), WORDS),
    "bag of a table": (lambda: nn.EmbeddingBag(9, 6), WORDS),
    "one output": (lambda: nn.Linear(6, 1), ROWS),
    "one row": (lambda: nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3)), ROWS[:1]),
}


class Twice(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x, x)


@pytest.mark.parametrize("look", ["gramian", "jacobian"])
@pytest.mark.parametrize("name", TRUNKS)
def test_any_layer_at_the_parameters(name: str, look: str) -> None:
    torch.manual_seed(0)
    make, inputs = TRUNKS[name]
    net = build(make(), inputs)
    check(net, look, shared=net.shared)


@pytest.mark.parametrize("look", ["gramian", "jacobian"])
@pytest.mark.parametrize("name", TRUNKS)
def test_any_layer_at_the_features(name: str, look: str) -> None:
    torch.manual_seed(0)
    make, inputs = TRUNKS[name]
    net = build(make(), inputs)
    saliency = rows_of(net.losses, [net.features])
    balancer = check(net, look, features=net.features)
    torch.testing.assert_close(balancer.seen, saliency @ saliency.T if look == "gramian" else saliency)


class Checkpointed(nn.Module):
    """A trunk whose middle is computed again in the backward."""

    def __init__(self, *, reentrant: bool) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(6, 5), nn.Sequential(nn.Linear(5, 5), nn.Tanh()), nn.Linear(5, 4)
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        return self.last(checkpoint(self.middle, self.first(x), use_reentrant=self.reentrant))


def twins(*, reentrant: bool) -> tuple[Net, Net]:
    """A net with an activation checkpoint, and the same net without."""
    torch.manual_seed(0)
    first = build(Checkpointed(reentrant=reentrant), ROWS)
    trunk, heads = copy.deepcopy(first.trunk), copy.deepcopy(first.heads)
    features = trunk.last(trunk.middle(trunk.first(ROWS)))
    return first, Net(trunk, heads, losses_of(features, heads), features)


@pytest.mark.parametrize("place", ["shared", "features"])
@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpoints(place: str, reentrant: bool) -> None:
    net, plain = twins(reentrant=reentrant)
    if reentrant and place == "shared":
        with pytest.raises(RequestError, match=r"use_reentrant=True, which hides.*in the trunk, pass features=z"):
            Weighted().backward(net.losses, shared=net.shared)
        return
    for one in (net, plain):
        Weighted().backward(one.losses, **{place: one.shared if place == "shared" else one.features})
    torch.testing.assert_close(grads_of(net.shared), grads_of(plain.shared))
    torch.testing.assert_close(grads_of(net.own), grads_of(plain.own))


def test_a_reentrant_checkpoint_in_a_head_is_refused() -> None:
    net = build(nn.Linear(6, 4), ROWS)
    net.losses["task 1"] = checkpoint(net.heads[1], net.features, use_reentrant=True).square().mean()
    with pytest.raises(RequestError, match=r"one with use_reentrant=False was expected"):
        Weighted().backward(net.losses, features=net.features)


@pytest.mark.slow
@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("place", ["shared", "features"])
def test_a_compiled_trunk(place: str, kept: bool) -> None:
    """Compiled for any number of rows, it gives its memory up in the first backward, unless it is told to keep it."""
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 5))
    with torch._functorch.config.patch(donated_buffer=not kept):
        torch._dynamo.reset()
        net = build(torch.compile(trunk, backend="aot_eager", dynamic=True), ROWS)
        plain = copy.deepcopy(trunk)
        expected = rows_of(losses_of(plain(ROWS), net.heads), list(plain.parameters()))
        where = {place: net.shared if place == "shared" else net.features}
        if place == "shared" and not kept:
            with pytest.raises(RequestError, match=r"donated_buffer = False before it is compiled.*features=z"):
                Weighted().backward(net.losses, **where)
            return
        Weighted().backward(net.losses, **where)
    torch.testing.assert_close(grads_of(net.shared), WEIGHTS @ expected)


@pytest.mark.parametrize("look", ["gramian", "jacobian"])
@pytest.mark.parametrize("per_task_heads", [False, True])
def test_weights_tied_between_the_trunk_and_a_head(look: str, per_task_heads: bool) -> None:
    torch.manual_seed(0)
    table = nn.Embedding(9, 6).double()
    features = torch.tanh(table(WORDS))
    losses = {str(k): (features @ table.weight.T)[..., k:].logsumexp(-1).mean() for k in range(2)}
    losses["2"] = features.square().mean()
    cut = features.detach().requires_grad_()
    above = [(cut @ table.weight.T)[..., k:].logsumexp(-1).mean() for k in range(2)] + [cut.square().mean()]
    own = torch.autograd.grad(
        sum((WEIGHTS[k] if per_task_heads else 1.0) * loss for k, loss in enumerate(above)),
        table.weight,
        retain_graph=True,
    )[0]
    saliency = torch.stack([torch.autograd.grad(loss, cut, retain_graph=True)[0] for loss in above])
    through = torch.autograd.grad(features, table.weight, torch.tensordot(WEIGHTS, saliency, 1), retain_graph=True)[0]
    balancer = Weighted(look, heads=WEIGHTS if per_task_heads else False)
    balancer.backward(losses, features=features)
    torch.testing.assert_close(table.weight.grad, own + through)


def test_a_sparse_table_gets_a_sparse_gradient() -> None:
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Embedding(9, 6, sparse=True), nn.Linear(6, 3))
    optimizer = torch.optim.SparseAdam([trunk[0].weight], lr=0.1)
    for _ in range(2):  # the second adds to the first
        net = build(trunk, WORDS)
        Weighted().backward(net.losses, shared=net.shared)
        assert trunk[0].weight.grad.is_sparse
    before = trunk[0].weight.detach().clone()
    optimizer.step()
    used = torch.zeros(9, dtype=torch.bool).index_fill(0, WORDS.flatten(), value=True)
    assert torch.equal((trunk[0].weight != before).any(dim=1), used)


@pytest.mark.parametrize("place", ["shared", "features"])
def test_parameters_that_no_loss_reads_get_no_gradient(place: str) -> None:
    net = build(Idle(), ROWS)
    Weighted().backward(net.losses, **{place: net.shared if place == "shared" else net.features})
    assert net.trunk.unused.weight.grad is None
    assert net.trunk.empty.grad is None or net.trunk.empty.grad.shape == (0, 5)
    assert net.trunk.used.weight.grad is not None


@pytest.mark.parametrize("place", ["shared", "features"])
def test_groups_accumulation_clipping_and_frozen_layers_in_one_loop(place: str) -> None:
    """Against a loop that forms every task's gradient by a backward of its own."""

    def train(*, plain: bool) -> list[Tensor]:
        torch.manual_seed(0)
        trunk = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 4)).double()
        heads = nn.ModuleList([nn.Linear(4, 2) for _ in range(3)]).double()
        trunk[2].requires_grad_(requires_grad=False)
        learning = [p for p in [*trunk.parameters(), *heads.parameters()] if p.requires_grad]
        groups = [{"params": learning[:2], "lr": 0.01, "weight_decay": 0.1}, {"params": learning[2:]}]
        optimizer = torch.optim.AdamW(groups, lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            for rows in ROWS.chunk(2):
                z = trunk(rows)
                losses = losses_of(z, heads)
                shared = [p for p in trunk.parameters() if p.requires_grad]
                if plain:
                    fill(losses, shared, list(heads.parameters()))
                else:
                    Weighted().backward(losses, **({"features": z} if place == "features" else {"shared": shared}))
            nn.utils.clip_grad_norm_(learning, 0.05)
            optimizer.step()
        return [parameter.detach() for parameter in learning]

    def fill(losses: dict[str, Tensor], shared: list[Tensor], own: list[Tensor]) -> None:
        rows, plain = WEIGHTS @ rows_of(losses, shared), rows_of(losses, own).sum(dim=0)
        for parameters, row in ((shared, rows), (own, plain)):
            for parameter, part in zip(parameters, row.split([p.numel() for p in parameters]), strict=True):
                part = part.reshape(parameter.shape)
                parameter.grad = part if parameter.grad is None else parameter.grad + part

    for found, expected in zip(train(plain=False), train(plain=True), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("place", ["shared", "features"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype: torch.dtype, place: str) -> None:
    """Against plain backwards through the same half-precision graph, as near as its digits allow."""
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 8))
    heads = nn.ModuleList([nn.Linear(8, 2) for _ in range(3)])
    with torch.autocast("cpu", dtype=dtype):
        features = trunk(ROWS.float())
        losses = {str(k): head(features).float().square().mean() for k, head in enumerate(heads)}
    expected, own = rows_of(losses, list(trunk.parameters())), rows_of(losses, list(heads.parameters())).sum(dim=0)
    Weighted().backward(losses, **({"features": features} if place == "features" else {"shared": trunk.parameters()}))
    near = {"rtol": 0.02, "atol": 0.02 * float(expected.abs().max())}
    torch.testing.assert_close(grads_of(list(trunk.parameters())), WEIGHTS.float() @ expected, **near)
    torch.testing.assert_close(grads_of(list(heads.parameters())), own, rtol=1e-3, atol=1e-4)
    assert all(parameter.grad.dtype == torch.float32 for parameter in trunk.parameters())


def closing(name: str) -> bool:
    return methods()[name].needs_closure or name == "fuller"


def place_of(name: str) -> str:
    return "features" if name in {"sdmgrad", "modo", "ntkmtl-sr"} else from_name(name).place


class Loop:
    """Training with a method, perhaps under a scaler."""

    def __init__(
        self, name: str, place: str, *, scaler: torch.amp.GradScaler | None = None, unit: float | None = None
    ) -> None:
        torch.manual_seed(0)
        self.unit, self.dtype = unit or 1.0, torch.float64 if unit is None else torch.float32
        self.trunk = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4)).to(self.dtype)
        self.heads = nn.ModuleList([nn.Linear(4, 2) for _ in range(3)]).to(self.dtype)
        self.balancer, self.place, self.scaler = from_name(name), place, scaler
        self.balancer.add_tasks([f"task {number}" for number in range(3)])
        self.optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)

    def parameters(self) -> list[Tensor]:
        return [*self.trunk.parameters(), *self.heads.parameters(), *self.balancer.parameters()]

    def step(self, number: int) -> Step:
        self.optimizer.zero_grad()
        z = self.trunk(ROWS.roll(number, 0).to(self.dtype))
        losses = {name: self.unit * loss for name, loss in losses_of(z, self.heads).items()}
        where = {"features": z} if self.place == "features" else {"shared": self.trunk.parameters()}
        step = self.balancer.backward(losses, **where, scaler=self.scaler)
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        return step

    def state(self) -> dict[str, object]:
        modules = {"trunk": self.trunk, "heads": self.heads, "balancer": self.balancer, "optimizer": self.optimizer}
        return {name: module.state_dict() for name, module in modules.items()}

    def load(self, path: Path) -> None:
        saved = torch.load(path)
        for name in ("trunk", "heads", "balancer", "optimizer"):
            getattr(self, name).load_state_dict(saved[name])


@pytest.mark.parametrize("name", [name for name in methods() if not closing(name)])
def test_a_run_goes_on_from_its_checkpoint_to_the_last_bit(name: str, tmp_path: Path) -> None:
    straight, first, second = (Loop(name, place_of(name)) for _ in range(3))
    for number in range(4):
        straight.step(number)
    for number in range(2):
        first.step(number)
    torch.save(first.state(), tmp_path / "state.pt")
    second.load(tmp_path / "state.pt")
    for number in range(2, 4):
        second.step(number)
    for found, expected in zip(second.parameters(), straight.parameters(), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("name", [name for name in methods() if not closing(name)])
def test_a_scaler_changes_nothing(name: str) -> None:
    """Methods of losses, of ratios of gradients, and with parameters of their own: all see unscaled values."""
    scaled = Loop(name, place_of(name), scaler=torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2))
    plain = Loop(name, place_of(name))
    for number in range(4):  # the scale doubles on the way
        found, expected = scaled.step(number), plain.step(number)
        assert found.weights == pytest.approx(expected.weights)
        if expected.gramian is not None:
            torch.testing.assert_close(found.gramian, expected.gramian)
    for found, expected in zip(scaled.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", ["upgrad", "moco", "dwa", "uncertainty"])
@pytest.mark.parametrize("place", ["shared", "features"])
def test_a_step_that_overflows_is_the_scalers_to_skip(name: str, place: str) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, backoff_factor=2.0**-100)
    loop, plain = Loop(name, place, scaler=scaler, unit=100.0), Loop(name, place, unit=100.0)
    before = [parameter.detach().clone() for parameter in loop.parameters()]
    step = loop.step(0)
    assert scaler.get_scale() == 2.0**27
    for parameter, value in zip(loop.parameters(), before, strict=True):
        assert torch.equal(parameter, value)
    if name in {"upgrad", "moco"}:
        assert step.skipped == ("task 0", "task 1", "task 2")
        loop.step(1)  # what is left of the overflow is nothing: the next step is as a first one
        plain.step(1)
        for found, expected in zip(loop.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(found, expected)


def test_a_scaler_keeps_small_gradients_in_half_precision() -> None:
    torch.manual_seed(0)
    trunk, heads = nn.Linear(6, 8), nn.ModuleList([nn.Linear(8, 2) for _ in range(3)])
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20)
    found = []
    for half in (True, False):
        trunk.zero_grad()
        with torch.autocast("cpu", dtype=torch.float16, enabled=half):
            z = trunk(ROWS.float())
            losses = {str(k): 1e-6 * head(z).float().square().mean() for k, head in enumerate(heads)}
        step = Weighted().backward(losses, features=z, scaler=scaler if half else None)
        found.append((trunk.weight.grad / (scaler.get_scale() if half else 1.0), step.gramian))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=0.02, atol=0.02 * float(found[1][0].abs().max()))
    torch.testing.assert_close(found[0][1], found[1][1], rtol=0.02, atol=0.02 * float(found[1][1].max()))
