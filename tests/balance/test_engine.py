"""The engine: exact inner products and combinations, whatever the network looks like."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from motet import RequestError
from motet.balance import Balancer, Update, UPGrad, View, gradient_gramian
from motet.balance.engine._layers import LinearLayer, PlainLayer
from motet.balance.engine._passes import Passes

WEIGHTS = torch.tensor([0.5, 2.0, 0.25], dtype=torch.float64)


class Fixed(Balancer):
    """Fixed weights, after having looked at what it is told to look at."""

    name = "fixed-for-tests"

    def __init__(self, look: str = "gramian", weights: Tensor = WEIGHTS) -> None:
        super().__init__()
        self.look, self.fixed = look, weights

    def update(self, view: View) -> Update:
        found = getattr(view, self.look)
        weights = self.fixed[: len(view.names)]
        return Update(direction=weights.to(found) @ found) if self.look == "jacobian" else Update(weights)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(torch.relu(self.layer(x)))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        start = self.first(x)
        return start + torch.tanh(self.second(start))


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 6))

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.block, x, use_reentrant=False)


class Outer(nn.Module):
    """A parameter that is used in no layer that the engine knows."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(6, 6))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bi,ij->bj", x, self.scale.exp())


ROWS = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
FEW = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
IMAGES = torch.randn(3, 2, 7, 7, generator=torch.Generator().manual_seed(2))
WORDS = torch.randint(0, 9, (4, 5), generator=torch.Generator().manual_seed(3))
MLP = (nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 9), nn.LayerNorm(9), nn.Linear(9, 5, bias=False))
CONVOLUTION = (nn.Conv2d(2, 4, 3, padding=1, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 3, bias=False))
ATTENTION = (nn.Embedding(9, 6, padding_idx=0), nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0, batch_first=True))
TRUNKS = {
    "mlp, few rows": (lambda: copy.deepcopy(nn.Sequential(*MLP)), FEW),
    "mlp, many rows": (lambda: nn.Sequential(nn.Linear(6, 9), nn.GELU(), nn.Linear(9, 5)), ROWS),
    "convolution": (lambda: copy.deepcopy(nn.Sequential(*CONVOLUTION)), IMAGES),
    "grouped convolution": (lambda: nn.Sequential(nn.Conv2d(2, 4, 3, groups=2), nn.ReLU()), IMAGES),
    "embedding and attention": (lambda: copy.deepcopy(nn.Sequential(*ATTENTION)), WORDS),
    "three axes": (lambda: nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3)), ROWS.reshape(5, 8, 6)),
    "tied": (Tied, ROWS),
    "residual": (Residual, ROWS),
    "checkpointed": (Checkpointed, ROWS),
    "unknown layer": (Outer, 0.1 * ROWS),
    "weight norm": (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(6, 4)), ROWS),
    "recurrent": (lambda: nn.GRUCell(6, 5), ROWS),
}  # fmt: skip


def build(name: str, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, nn.ModuleList, dict[str, Tensor], Tensor]:
    torch.manual_seed(0)
    make, inputs = TRUNKS[name]
    trunk = make().to(dtype)
    inputs = inputs.to(dtype) if inputs.is_floating_point() else inputs
    features = trunk(inputs)
    flat = features.flatten(1)
    heads = nn.ModuleList([nn.Linear(flat.shape[1], 2) for _ in range(3)]).to(dtype)
    losses = {f"task {number}": head(flat).square().mean() for number, head in enumerate(heads)}
    return trunk, heads, losses, features


def rows_of(losses: dict[str, Tensor], parameters: list[Tensor]) -> Tensor:
    """The Jacobian by one plain backward a task."""
    rows = []
    for loss in losses.values():
        grads = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        rows.append(
            torch.cat(
                [
                    torch.zeros_like(p).flatten() if g is None else g.flatten()
                    for p, g in zip(parameters, grads, strict=True)
                ]
            )
        )
    return torch.stack(rows)


@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
@pytest.mark.parametrize("name", TRUNKS)
def test_gramian_jacobian_and_combination_equal_plain_backwards(name: str) -> None:
    trunk, _, losses, _ = build(name)
    shared = list(trunk.parameters())
    expected = rows_of(losses, shared)
    passes = Passes(losses, shared)
    torch.testing.assert_close(passes.gramian(), expected @ expected.T)
    torch.testing.assert_close(passes.jacobian(), expected)
    combined = passes.combine(WEIGHTS)
    flat = torch.cat(
        [combined[id(p)].flatten() if id(p) in combined else torch.zeros(p.numel(), dtype=p.dtype) for p in shared]
    )
    torch.testing.assert_close(flat, WEIGHTS @ expected)


@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
@pytest.mark.parametrize("look", ["gramian", "jacobian"])
@pytest.mark.parametrize("name", TRUNKS)
def test_backward_fills_every_gradient(name: str, look: str) -> None:
    trunk, heads, losses, _ = build(name)
    shared, own = list(trunk.parameters()), list(heads.parameters())
    expected = WEIGHTS @ rows_of(losses, shared)
    expected_own = rows_of(losses, own).sum(dim=0)
    step = Fixed(look).backward(losses, shared=trunk.parameters())
    found = torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in shared])
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.cat([p.grad.flatten() for p in own]), expected_own)
    assert (step.gramian is not None) == (look == "gramian")


@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
@pytest.mark.parametrize("name", [name for name in TRUNKS if name != "checkpointed"])
def test_at_the_features_one_pass_gives_the_same_combination(name: str) -> None:
    trunk, heads, losses, features = build(name)
    shared, own = list(trunk.parameters()), list(heads.parameters())
    expected, expected_own = WEIGHTS @ rows_of(losses, shared), rows_of(losses, own).sum(dim=0)
    saliency = torch.stack(
        [torch.autograd.grad(loss, features, retain_graph=True)[0].flatten() for loss in losses.values()]
    )
    step = Fixed().backward(losses, features=features)
    torch.testing.assert_close(step.gramian, saliency @ saliency.T)
    found = torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in shared])
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.cat([p.grad.flatten() for p in own]), expected_own)


def test_the_fast_path_is_taken_where_it_should_be() -> None:
    trunk, _, losses, _ = build("mlp, few rows")
    kinds = [type(layer) for layer in Passes(losses, list(trunk.parameters())).layers]
    assert kinds == [LinearLayer, LinearLayer, PlainLayer, PlainLayer, LinearLayer]


def test_losses_that_meet_at_two_depths_are_not_counted_twice() -> None:
    torch.manual_seed(0)
    first, second = nn.Linear(6, 5).double(), nn.Linear(5, 5).double()
    middle = torch.relu(first(ROWS.double()))
    deep = torch.relu(second(middle))
    losses = {"a": deep.square().mean() + middle.mean(), "b": middle.square().mean(), "c": (deep * middle).mean()}
    shared = [*first.parameters(), *second.parameters()]
    expected = rows_of(losses, shared)
    torch.testing.assert_close(Passes(losses, shared).gramian(), expected @ expected.T)


def test_a_head_may_hold_shared_parameters_and_a_trunk_own_ones() -> None:
    torch.manual_seed(0)
    trunk, common = nn.Linear(6, 5).double(), nn.Linear(5, 5).double()
    z = torch.relu(trunk(ROWS.double()))
    losses = {"a": common(z).square().mean(), "b": common(2 * z).square().mean(), "c": z.mean()}
    shared = [trunk.weight, *common.parameters()]
    expected = rows_of(losses, shared)
    torch.testing.assert_close(Passes(losses, shared).gramian(), expected @ expected.T)
    plain = torch.autograd.grad(sum(losses.values()), trunk.bias, retain_graph=True)[0]
    Fixed().backward(losses, shared=shared)
    torch.testing.assert_close(trunk.bias.grad, plain)


def test_gradients_accumulate_and_frozen_parameters_stay_without() -> None:
    trunk, _, losses, _ = build("mlp, few rows")
    trunk[0].weight.requires_grad_(requires_grad=False)
    again = copy.deepcopy(trunk)
    torch.manual_seed(5)
    head = nn.ModuleList([nn.Linear(5, 1).double() for _ in range(2)])
    for _ in range(2):
        z = again(FEW.double())
        Fixed().backward({str(k): h(z).square().mean() for k, h in enumerate(head)}, shared=again.parameters())
    z = again(FEW.double())
    shared = [p for p in again.parameters() if p.requires_grad]
    expected = 2 * WEIGHTS[:2] @ rows_of({str(k): h(z).square().mean() for k, h in enumerate(head)}, shared)
    assert again[0].weight.grad is None
    torch.testing.assert_close(torch.cat([p.grad.flatten() for p in shared]), expected)
    del losses


def test_half_precision_autocast_is_close_to_full() -> None:
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 8))
    heads = nn.ModuleList([nn.Linear(8, 1) for _ in range(3)])

    def losses(*, half: bool) -> dict[str, Tensor]:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            z = trunk(ROWS)
            return {str(k): head(z).float().square().mean() for k, head in enumerate(heads)}

    half, full = losses(half=True), losses(half=False)
    found = Passes(half, list(trunk.parameters())).gramian()
    torch.testing.assert_close(found, gradient_gramian(full, list(trunk.parameters())), rtol=0.05, atol=1e-4)
    Fixed().backward(half, shared=trunk.parameters())
    assert all(p.grad.dtype == torch.float32 for p in trunk.parameters())


def test_float32_is_as_exact_as_forming_the_jacobian() -> None:
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU())
    heads = nn.ModuleList([nn.Linear(256, 1) for _ in range(8)])
    z = trunk(torch.randn(48, 64))
    losses = {str(k): head(z).square().mean() for k, head in enumerate(heads)}
    found = Passes(losses, list(trunk.parameters())).gramian()
    rows = rows_of(losses, list(trunk.parameters())).double()
    torch.testing.assert_close(found, rows @ rows.T, rtol=1e-5, atol=1e-9)


def test_a_task_that_does_not_reach_the_shared_parameters_is_named() -> None:
    trunk, _, losses, _ = build("mlp, few rows")
    apart = torch.tensor(1.0, requires_grad=True)
    with pytest.raises(RequestError, match=r"Task 'apart' has a loss that does not depend on the shared parameters"):
        Fixed().backward(losses | {"apart": apart.double() * 2}, shared=trunk.parameters())


def test_a_gradient_method_without_a_place_says_what_to_pass() -> None:
    _, _, losses, _ = build("mlp, few rows")
    with pytest.raises(RequestError, match=r"Fixed compares the tasks' gradients.*shared=trunk.parameters\(\)"):
        Fixed().backward(losses)


def test_conflicts_are_named_worst_first() -> None:
    p = torch.tensor([1.0, 1.0], dtype=torch.float64, requires_grad=True)
    losses = {"a": p[0], "b": -p[0] + 0.1 * p[1], "c": -p[0] + p[1]}
    step = Fixed(weights=torch.ones(3, dtype=torch.float64)).backward(losses, shared=[p])
    assert [pair[:2] for pair in step.conflicts] == [("b", "a"), ("c", "a")]


@pytest.mark.slow
def test_a_compiled_trunk_gives_the_same() -> None:
    trunk, _, _, _ = build("mlp, few rows", torch.float32)
    # What docs/balance.md asks for; without it the test hung on what else the process had compiled.
    with torch._functorch.config.patch(donated_buffer=False):
        compiled = torch.compile(copy.deepcopy(trunk), backend="aot_eager")
        heads = nn.ModuleList([nn.Linear(5, 1) for _ in range(3)])
        found = []
        for net in (trunk, compiled):
            z = net(FEW)
            losses = {str(k): head(z).square().mean() for k, head in enumerate(heads)}
            found.append(Passes(losses, list(net.parameters())).gramian())
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("gramian", ["exact", "sketch"])
def test_losses_may_meet_at_a_scalar(gramian: str) -> None:
    trunk, inputs = nn.Linear(3, 2).double(), torch.arange(12.0, dtype=torch.float64).reshape(4, 3)
    total = trunk(inputs).sum()
    UPGrad(gramian=gramian).backward({"up": total, "more": 3 * total}, shared=trunk.parameters())
    assert trunk.weight.grad is not None
    torch.testing.assert_close(trunk.weight.grad, 2 * inputs.sum(dim=0).expand(2, 3))  # the mean of agreeing gradients
