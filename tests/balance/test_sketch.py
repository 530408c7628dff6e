"""The sketch: a backward of our own over some rows, its rules one by one, and what a method makes of the estimate."""

import copy
import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from motet import RequestError
from motet.balance import CAGrad, Sketch, UPGrad, cosines, methods, sketch_error
from motet.balance.engine._calibration import RIDGE, calibrated
from motet.balance.engine._near import near_plans
from motet.balance.engine._passes import Passes
from motet.balance.engine._plans import Delta
from motet.balance.engine._rows import CoupledError, Rows
from motet.balance.engine._sketch import _projection, estimate
from motet.balance.engine._tops import Top
from motet.balance.parts._gramian_method import GramianBalancer

GRAMIAN = [name for name, kind in methods().items() if issubclass(kind, GramianBalancer)]
Forward = Callable[[nn.Module, Tensor], Tensor]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Between(nn.Module):
    """One operation between two layers, so that the gradients of the first pass through it."""

    def __init__(self, first: nn.Module, forward: Forward, last: nn.Module) -> None:
        super().__init__()
        self.first, self.last, self.operation = first, last, forward

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(self.operation(self, self.first(inputs)))


class Attention(nn.Module):
    def __init__(self, *, causal: bool = False, mask: bool = False) -> None:
        super().__init__()
        self.first, self.last, self.causal, self.mask = nn.Linear(6, 24), nn.Linear(8, 5), causal, mask

    def forward(self, tokens: Tensor) -> Tensor:
        query, key, value = (part.unflatten(2, (2, 4)).transpose(1, 2) for part in self.first(tokens).split(8, dim=2))
        mask = random(len(tokens), 1, 1, tokens.shape[1], seed=5) if self.mask else None
        found = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=self.causal)
        return self.last(found.transpose(1, 2).flatten(2)).mean(dim=1)


def flat(name: str) -> Callable[[], nn.Module]:
    """An operation on (B, 8)."""
    return lambda: Between(nn.Linear(6, 8), OPERATIONS[name], nn.Linear(8, 5, bias=False))


def image(operation: Forward) -> Callable[[], nn.Module]:
    """An operation on images (B, 4, 6, 6)."""
    return lambda: Between(nn.Conv2d(2, 4, 3, padding=1), operation, nn.Sequential(nn.Flatten(), nn.LazyLinear(5)))


def last_axes(z: Tensor) -> Tensor:
    """Operations on (B, 2, 4) that name their axes from the end: nodes save these as huge numbers."""
    z = z.transpose(-1, -2).softmax(-2).permute(-3, -1, -2)
    z = torch.cat([z[..., -1:], z[..., :-1]], dim=-1) + z.mean(-1, keepdim=True)
    return z.unsqueeze(-2).squeeze(-2) * z.select(-1, -2).unsqueeze(-1)


MASK = (random(12, 8, seed=7) > 0).double() / 0.5
OPERATIONS: dict[str, Forward] = {
    "relu": lambda _, z: z.relu(),
    "tanh": lambda _, z: z.tanh(),
    "sigmoid": lambda _, z: z.sigmoid(),
    "exp": lambda _, z: (-z).exp(),
    "gelu": lambda _, z: functional.gelu(z),
    "gelu by tanh": lambda _, z: functional.gelu(z, approximate="tanh"),
    "silu": lambda _, z: functional.silu(z),
    "leaky relu": lambda _, z: functional.leaky_relu(z, 0.2),
    "dropout": lambda _, z: functional.dropout(z, 0.5),
    "fused dropout": lambda _, z: torch.native_dropout(z, 0.5, True)[0],
    "softmax": lambda _, z: z.softmax(1),
    "layer norm": lambda _, z: functional.layer_norm(z, (8,)),
    "mask": lambda _, z: z * MASK,
    "gate": lambda _, z: z * z.sigmoid() - 2 * z,
    "ratio": lambda _, z: z / (1 + MASK),
    "sum": lambda _, z: z + 0.5 * z.sum(dim=1, keepdim=True),
    "join": lambda _, z: torch.cat([z[:, 4:].tanh(), z[:, :4]], dim=1),
    "stride": lambda _, z: torch.cat([z[:, ::2], z[:, 1::2].relu()], dim=1),
    "column": lambda _, z: z + z[:, 3].unsqueeze(1).expand(-1, 8),
    "permute": lambda _, z: z.reshape(12, 2, 4).permute(1, 0, 2).tanh().permute(1, 2, 0).reshape(12, 8),
    "rows second": lambda _, z: z.T.contiguous().sigmoid().T,
    "products of rows": lambda _, z: torch.bmm(z.view(12, 4, 2), z.view(12, 2, 4)).mean(dim=1).tanh() @ random(4, 8),
    "unbind": lambda _, z: torch.cat(z.unflatten(1, (2, 4)).unbind(1)[::-1], dim=1),
    "part of a split": lambda _, z: torch.cat([z.split(3, dim=1)[1], z[:, :5]], dim=1),
    "axes from the end": lambda _, z: last_axes(z.unflatten(1, (2, 4))).flatten(1),
    "unsqueeze": lambda _, z: z.unsqueeze(1).squeeze(1).relu(),
}  # fmt: skip
IMAGE: dict[str, Forward] = {
    "convolution": lambda _, z: functional.conv2d(z, random(4, 4, 3, 3, seed=3), stride=2, padding=1),
    "grouped convolution": lambda _, z: functional.conv2d(z, random(4, 2, 3, 3, seed=3), groups=2, dilation=2),
    "group norm": lambda _, z: functional.group_norm(z, 2, random(4, seed=1), random(4, seed=2)),
    "batch norm at rest": lambda _, z: functional.batch_norm(z, torch.zeros(4).double(), torch.ones(4).double() * 2),
    "average pool": lambda _, z: functional.avg_pool2d(z, 2, stride=1, padding=1),
    "adaptive average pool": lambda _, z: functional.adaptive_avg_pool2d(z, (2, 3)),
    "mean": lambda _, z: z.mean(dim=(2, 3)),
    "max pool": lambda _, z: functional.max_pool2d(z, 3, stride=1),
}
TOKENS = random(12, 3, 6)
TRUNKS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    **{name: (flat(name), random(12, 6)) for name in OPERATIONS},
    **{name: (image(operation), random(12, 2, 6, 6)) for name, operation in IMAGE.items()},
    "tokens": (lambda: nn.Sequential(nn.Linear(6, 7), nn.LayerNorm(7), nn.Linear(7, 4), nn.Flatten()), TOKENS),
    "attention": (Attention, TOKENS),
    "causal attention": (lambda: Attention(causal=True), TOKENS),
    "masked attention": (lambda: Attention(mask=True), TOKENS),
    "encoder layer": (
        lambda: nn.Sequential(nn.TransformerEncoderLayer(6, 2, 8, batch_first=True), nn.Flatten()),
        TOKENS,
    ),
    "tied": (lambda: nn.Sequential(tied := nn.Linear(6, 6), nn.Tanh(), tied), random(12, 6)),
    "words": (
        lambda: nn.Sequential(nn.Embedding(9, 4, padding_idx=0), nn.Flatten(), nn.Linear(20, 5)),
        torch.randint(0, 9, (12, 5), generator=torch.Generator().manual_seed(1)),
    ),
}  # fmt: skip


def build(name: str, num_tasks: int = 3) -> tuple[nn.Module, nn.ModuleList, dict[str, Tensor], Tensor]:
    torch.manual_seed(0)
    make, inputs = TRUNKS[name]
    trunk = make().double()
    z = trunk(inputs)
    heads = nn.ModuleList([nn.Linear(z.shape[1], 2) for _ in range(num_tasks)]).double()
    targets = random(num_tasks, len(z), 2, seed=9)
    losses = {str(k): (head(z) - targets[k]).square().mean() for k, head in enumerate(heads)}
    return trunk, heads, losses, z


def of_rows(losses: dict[str, Tensor], z: Tensor, shared: list[Tensor], index: Tensor) -> Tensor:
    """The part of every task's gradient that comes from some rows, by one plain backward a task."""
    keep = torch.zeros(len(z), *[1] * (z.ndim - 1), dtype=z.dtype)
    keep[index] = 1
    rows = []
    for loss in losses.values():
        top = torch.autograd.grad(loss, z, retain_graph=True)[0]
        grads = torch.autograd.grad(z, shared, top * keep, retain_graph=True, allow_unused=True)
        rows.append(
            torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(shared, grads, strict=True)])
        )
    return torch.stack(rows)


def gramian_of_rows(passes: Passes, index: Tensor) -> Tensor:
    edges = [edge for plan in passes.plans_by_rows for edge in plan.edges]
    deltas = {key: Delta(values, None, rows) for key, (values, rows) in passes.rows_at(index, edges).items()}
    return sum(plan.build(deltas, len(passes.losses)).gramian() for plan in passes.plans_by_rows)


@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True", "ignore:Lazy modules are a new feature")
@pytest.mark.parametrize("name", TRUNKS)
def test_the_gradients_of_some_rows_are_those_of_a_plain_backward(name: str) -> None:
    trunk, _, losses, z = build(name)
    shared, index = list(trunk.parameters()), torch.tensor([1, 4, 5, 9])
    expected = of_rows(losses, z, shared, index)
    torch.testing.assert_close(gramian_of_rows(Passes(losses, shared), index), expected @ expected.T)


@pytest.mark.parametrize("before", [(4, 6), (24,), (2, 12), (4, 2, 3), (1, 24)])
def test_rows_are_found_again_after_a_view(before: tuple[int, ...]) -> None:
    # Row b of 4 holds the numbers 6 b to 6 b + 5, in every shape.
    whole = torch.arange(24)
    rows = Rows(4, torch.tensor([1, 3]))
    try:
        lies = rows.viewed((4, 6), before)
    except CoupledError:
        assert before == (2, 12)
        return
    assert lies.of(whole.reshape(before)).flatten().tolist() == [*range(6, 12), *range(18, 24)]
    assert list(lies.of(whole.reshape(before)).shape) == lies.shape(before)


def test_rows_in_the_middle_of_an_axis_are_found() -> None:
    whole = torch.arange(24).reshape(2, 3, 4)  # the second axis is rows
    lies = Rows(3, torch.tensor([2]), axis=1).viewed((2, 3, 4), (6, 4))
    assert (lies.axis, lies.outer, lies.inner) == (0, 2, 1)
    assert torch.equal(lies.of(whole.reshape(6, 4)), whole[:, 2])


def tops_of(losses: dict[str, Tensor], trunk: nn.Module) -> list[Top]:
    return Passes(losses, list(trunk.parameters())).top_pass.tops


@pytest.mark.parametrize("heads", ["linear", "frozen", "curved"])
def test_the_rows_weights_are_those_of_least_squares(heads: str) -> None:
    """A head that does not keep the features, or does not begin with a matrix, leaves the gradients there alone."""
    torch.manual_seed(0)
    trunk = nn.Linear(6, 5).double()
    parts = [nn.Linear(5, 2) if heads != "curved" else nn.Sequential(nn.Tanh(), nn.Linear(5, 2)) for _ in range(3)]
    z = trunk(random(12, 6))
    head_list = nn.ModuleList(parts).double().requires_grad_(heads != "frozen")
    losses = {str(k): (head(z) - k).square().mean() for k, head in enumerate(head_list)}
    index = torch.tensor([0, 3, 4, 9])
    found = calibrated(tops_of(losses, trunk), index)
    for k, loss in enumerate(losses.values()):
        delta = torch.autograd.grad(loss, z, retain_graph=True)[0]
        size = z.detach().square().sum(dim=1).mean().sqrt()
        seen = (
            torch.cat([torch.ones(12, 1).double(), z.detach() / size], dim=1)
            if heads == "linear"
            else torch.ones(12, 1)
        )
        rows = torch.einsum("bf,bz->bfz", delta, seen.double()).flatten(1)
        ridge = (RIDGE * rows[index].square().sum(dim=1).mean()).sqrt() * torch.eye(4, dtype=torch.float64)
        left, right = (
            torch.cat([rows[index].T, ridge]),
            torch.cat([rows.sum(dim=0), ridge @ torch.full((4,), 3.0).double()]),
        )
        expected = torch.linalg.lstsq(left, right.unsqueeze(1)).solution.squeeze(1)
        torch.testing.assert_close(found[k], expected)


def test_a_task_without_gradients_keeps_plain_weights() -> None:
    trunk, heads, losses, z = build("relu")
    losses["1"] = 0.0 * heads[1](z).sum()
    found = calibrated(tops_of(losses, trunk), torch.tensor([1, 2, 7]))
    assert found[1].tolist() == [4.0, 4.0, 4.0]
    assert float((found[0] - 4.0).abs().min()) > 1e-3


def test_rows_that_lean_to_one_side_do_not_drown_gradients_that_cancel() -> None:
    # A trained net: each task's residuals sum to zero over the batch, not over the chosen rows.
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 5)).double()
    x = random(48, 6) * 0.1 + 1.0  # rows much alike
    heads, z = nn.ModuleList([nn.Linear(5, 1) for _ in range(3)]).double(), trunk(x)
    noise = random(3, 48, seed=4)
    outputs = [head(z)[:, 0] for head in heads]
    losses = {
        str(k): (out - out.detach() - noise[k] + noise[k].mean() - 0.05).square().mean()
        for k, out in enumerate(outputs)
    }
    shared = list(trunk.parameters())
    exact = cosines(Passes(losses, shared).gramian())
    found = torch.stack([cosines(estimate(Passes(losses, shared), Sketch(), step).gramian) for step in range(8)])
    assert float((found - exact).abs().mean()) < 0.1


SIZES = [(256, 8, 32), (256, 40, 48), (32, 8, 5), (16, 8, 2), (6, 8, 2)]


@pytest.mark.parametrize(("count", "num_tasks", "chosen"), SIZES)
def test_small_batches_give_a_larger_share(count: int, num_tasks: int, chosen: int) -> None:
    torch.manual_seed(0)
    trunk = nn.Linear(3, 4)
    z = trunk(torch.randn(count, 3))
    losses = {str(k): nn.Linear(4, 1)(z).square().mean() for k in range(num_tasks)}
    assert estimate(Passes(losses, list(trunk.parameters())), Sketch(), 0).source == f"{chosen} of {count} rows"


def test_the_estimate_is_the_gramian_of_its_rows_and_repeats_under_its_seed() -> None:
    trunk, _, losses, z = build("tanh")
    shared = list(trunk.parameters())
    first = estimate(Passes(losses, shared), Sketch(share=0.5, seed=3), 7)
    assert first.source == "6 of 12 rows"
    assert torch.equal(first.gramian, estimate(Passes(losses, shared), Sketch(share=0.5, seed=3), 7).gramian)
    assert not torch.equal(first.gramian, estimate(Passes(losses, shared), Sketch(share=0.5, seed=3), 8).gramian)
    generator = torch.Generator().manual_seed(3 * 1_000_003 + 7)
    index = torch.randperm(12, generator=generator)[:6].sort().values
    weights = calibrated(tops_of(losses, trunk), index)
    rows = torch.stack([of_rows(losses, z, shared, index[place : place + 1]) for place in range(6)])  # (r, T, P)
    estimates = torch.einsum("tr,rtp->tp", weights, rows)
    torch.testing.assert_close(first.gramian, estimates @ estimates.T)


def test_a_projection_is_unbiased() -> None:
    trunk, _, losses, _ = build("convolution")
    shared = list(trunk.parameters())
    plain = estimate(Passes(losses, shared), Sketch(share=0.5), 1).gramian
    assert not torch.allclose(estimate(Passes(losses, shared), Sketch(share=0.5, width=2), 1).gramian, plain)
    draws = [torch.Generator().manual_seed(seed) for seed in range(400)]
    passes = Passes(losses, shared)
    edges = [edge for plan in passes.plans_by_rows for edge in plan.edges]
    deltas = {k: Delta(v, None, r) for k, (v, r) in passes.rows_at(torch.arange(6), edges).items()}
    plan = next(plan for plan in passes.plans_by_rows if plan.reader is not None and plan.reader.kind == "kernel")
    found = torch.stack([plan.build(deltas, 3, _projection(plan, deltas, 2, draw)).gramian() for draw in draws])
    expected = plan.build(deltas, 3).gramian()
    assert float((found.mean(dim=0) - expected).norm() / expected.norm()) < 0.1
    assert float((found[0] - expected).norm() / expected.norm()) > 0.1


def chain(*sizes: int) -> tuple[nn.Sequential, dict[str, Tensor], Tensor]:
    """Layers of these widths, and three tasks."""
    torch.manual_seed(0)
    layers = [part for a, b in itertools.pairwise(sizes) for part in (nn.Linear(a, b), nn.Tanh())]
    trunk = nn.Sequential(*layers).double()
    z = trunk(random(12, sizes[0]))
    losses = {str(k): (nn.Linear(sizes[-1], 1).double()(z) - k).square().mean() for k in range(3)}
    return trunk, losses, z


@pytest.mark.parametrize(
    ("sizes", "near"),
    [
        ((64, 64, 64, 2), ["4"]),  # a last layer that is small beside the others
        ((64, 64, 2, 64, 64), []),  # the small layer lies below one that costs too much to pass
        ((64, 64, 3, 3), ["2", "4"]),  # one small layer below another
        ((8, 8, 8), []),
    ],
)
def test_small_layers_near_the_features_are_read_from_all_rows(sizes: tuple[int, ...], near: list[str]) -> None:
    trunk, losses, z = chain(*sizes)
    passes = Passes(losses, list(trunk.parameters()))
    shared = [parameter for name in near for parameter in trunk.get_submodule(name).parameters()]
    names = [
        name
        for name, part in trunk.named_children()
        for plan in near_plans(passes)
        if plan.parameter in {*part.parameters()}
    ]
    assert names == near
    rest = [p for p in trunk.parameters() if all(p is not other for other in shared)]
    found = estimate(Passes(losses, list(trunk.parameters())), Sketch(share=0.5), 1)
    index = torch.randperm(12, generator=torch.Generator().manual_seed(1))[:6].sort().values
    weights = calibrated(passes.top_pass.tops, index)
    rows = torch.stack([of_rows(losses, z, rest, index[place : place + 1]) for place in range(6)])
    parts = torch.einsum("tr,rtp->tp", weights, rows)
    expected = parts @ parts.T
    if shared:
        whole = of_rows(losses, z, shared, torch.arange(12))
        expected = expected + whole @ whole.T
    torch.testing.assert_close(found.gramian, expected)


FALLBACKS = {
    "batch norm": "NativeBatchNormBackward0",
    "an unknown operation": "SoftplusBackward0",
    "a parameter by itself": "MulBackward0 uses a shared parameter",
    "few rows": "there are 12 rows",
}


@pytest.mark.parametrize("case", FALLBACKS)
def test_what_cannot_be_estimated_is_exact_and_says_why(case: str) -> None:
    torch.manual_seed(0)
    body: list[nn.Module] = [nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5)]
    if case == "batch norm":
        body.insert(1, nn.BatchNorm1d(8))
    if case == "an unknown operation":
        body.insert(1, nn.Softplus())
    if case == "a parameter by itself":
        body.insert(1, Scale())
    trunk = nn.Sequential(*body).double()
    z = trunk(random(12, 6))
    heads = nn.ModuleList([nn.Linear(5, 1) for _ in range(3)]).double()
    losses = {str(k): head(z).square().mean() for k, head in enumerate(heads)}
    method = UPGrad(gramian=Sketch(share=1.0) if case == "few rows" else "sketch")
    exact = Passes(losses, list(trunk.parameters())).gramian()
    step = method.backward(losses, shared=trunk.parameters())
    assert step.source.startswith("exact: ")
    assert FALLBACKS[case] in step.source
    torch.testing.assert_close(step.gramian, exact)


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(8))

    def forward(self, z: Tensor) -> Tensor:
        return z * self.scale


@pytest.mark.parametrize("name", GRAMIAN)
def test_a_step_applies_the_estimates_weights_to_exact_gradients(name: str) -> None:
    trunk, heads, losses, _ = build("relu")
    shared = list(trunk.parameters())
    slow = copy.deepcopy(trunk)
    step = methods()[name](gramian=Sketch(share=0.5)).backward(losses, shared=shared)
    assert step.source == "6 of 12 rows"
    weights = torch.tensor(list(step.weights.values()), dtype=torch.float64)
    z = slow(TRUNKS["relu"][1])
    targets = random(3, 12, 2, seed=9)
    again = [(head(z) - targets[k]).square().mean() for k, head in enumerate(heads)]
    expected = torch.autograd.grad((torch.stack(again) * weights).sum(), list(slow.parameters()))
    for parameter, grad in zip(shared, expected, strict=True):
        torch.testing.assert_close(parameter.grad, grad)


def test_draws_go_on_where_a_saved_method_stopped() -> None:
    def step(method: CAGrad) -> Tensor:
        trunk, _, losses, _ = build("relu")
        return method.backward(losses, shared=trunk.parameters()).gramian

    first, second = CAGrad(gramian=Sketch(share=0.5)), CAGrad(gramian=Sketch(share=0.5))
    steps = [step(first)]
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    steps += [step(first), step(second)]
    assert not torch.equal(steps[0], steps[1])
    assert torch.equal(steps[1], steps[2])
    assert CAGrad().state_dict() == {}
    first.reset()
    assert torch.equal(step(first), steps[0])


def test_the_error_is_told_on_demand() -> None:
    trunk, _, losses, _ = build("relu")
    shared = list(trunk.parameters())
    exact = Passes(losses, shared).gramian()
    few = sketch_error(losses, shared, sketch=Sketch(share=0.5), step=2)
    found = estimate(Passes(losses, shared), Sketch(share=0.5), 2).gramian
    assert few.relative == pytest.approx(float((found - exact).norm() / exact.norm()))
    assert few.cosine == pytest.approx(float((cosines(found) - cosines(exact)).abs().max()))
    assert few.source == "6 of 12 rows"
    whole = sketch_error(losses, shared, sketch=Sketch(share=1.0))
    assert whole.relative == whole.cosine == 0
    assert all(parameter.grad is None for parameter in shared)


def test_bad_settings_say_what_to_pass() -> None:
    with pytest.raises(RequestError, match=r"share=0 and width=64.*Sketch\(\) is a good start"):
        Sketch(share=0)
    with pytest.raises(RequestError, match=r"UPGrad got gramian='rough'; pass 'exact', 'sketch' or a Sketch"):
        UPGrad(gramian="rough")
