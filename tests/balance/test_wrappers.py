"""Closures, and what goes around a method: SAM, F-MTL, SAMO, Rep-MTL, noise, clipping, accumulation; and FULLER."""

import copy
import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import pytest
import torch
import torch._functorch.config
from torch import Tensor, nn

from motet import RequestError, balance
from motet.balance import (
    DBMTL,
    FMTL,
    FULLER,
    IMTLG,
    MGDA,
    SAM,
    SAMO,
    Accumulation,
    Alternating,
    Balancer,
    CAGrad,
    ElementwiseClipping,
    EqualWeighting,
    FairGrad,
    GCond,
    GradientNoise,
    MoCo,
    NashMTL,
    NormalisedDescent,
    RandomLossWeighting,
    RepMTL,
    UncertaintyWeighting,
    Update,
    View,
    from_name,
    methods,
    wrappers,
)
from motet.balance.around._accumulation import Share
from motet.balance.around._repmtl import alignment, entropy
from motet.data import Features, TableRows
from motet.models import HardSharing, MultiTaskModel, TabularEncoder, bin_edges
from motet.tasks import Binary, Regression
from motet.train import Clock, LoopSettings, Trainer

INNER = [EqualWeighting, CAGrad, MoCo, UncertaintyWeighting, RandomLossWeighting, DBMTL]
COMBINATIONS = [
    "sam+moco", "f-mtl+uncertainty", "f-mtl+moco", "samo+db-mtl", "rep-mtl+gradvac", "rep-mtl+f-mtl+cagrad",
    "gradient-noise+f-mtl+famo", "f-mtl+gradient-noise+cagrad", "sam+rep-mtl+equal", "normalised-descent+sam+cagrad",
    "element-wise-clipping+accumulation+gcond",
]  # fmt: skip


class Net(nn.Module):
    """A trunk that all tasks share, and a head for each."""

    def __init__(self, *layers: nn.Module, num_tasks: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Linear(4, 5), *layers, nn.Tanh())
        self.heads = nn.ModuleList([nn.Linear(5, 1) for _ in range(num_tasks)])
        self.double()
        generator = torch.Generator().manual_seed(1)
        self.x = torch.randn(12, 4, generator=generator).double()
        self.y = torch.randn(num_tasks, 12, 1, generator=generator).double()
        self.calls = 0

    def losses(self, rows: slice = slice(None), tasks: Sequence[int] | None = None) -> tuple[dict[str, Tensor], Tensor]:
        self.calls += 1
        z = self.trunk(self.x[rows])
        numbers = range(len(self.heads)) if tasks is None else tasks
        losses = {f"t.{k}": (self.heads[k](z) - self.y[k, rows]).square().mean() * (k + 1) for k in numbers}
        return losses, z

    def closure(self, method: Balancer, rows: slice = slice(None), tasks: Sequence[int] | None = None) -> Callable:
        """As a training loop makes it."""
        features = method.place == "features" or method.needs_features
        return lambda: self.losses(rows, tasks) if features else self.losses(rows, tasks)[0]

    def shared(self, method: Balancer) -> Iterator[Tensor] | None:
        return None if method.place == "features" else self.trunk.parameters()

    def grads(self) -> list[Tensor]:
        """All gradients; zeros for those that are not there."""
        return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in self.parameters()]


def step(method: Balancer, net: Net, **batch: object) -> list[Tensor]:
    """The gradients of one step."""
    net.zero_grad()
    method.backward(net.closure(method, **batch), shared=net.shared(method))
    return net.grads()


def same(first: Sequence[Tensor], second: Sequence[Tensor], tolerance: float = 1e-10) -> bool:
    return all(torch.allclose(a, b, rtol=tolerance, atol=tolerance) for a, b in zip(first, second, strict=True))


def scalar(value: float = 1.0) -> Tensor:
    return torch.tensor(value, dtype=torch.float64, requires_grad=True)


# Closures -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["equal", "cagrad", "moco", "mgda", "momentum-config", "alternating"])
def test_a_plain_method_takes_a_closure_and_calls_it_once(name: str) -> None:
    net, method = Net(), from_name(name)
    found = step(method, net)
    assert net.calls == 1
    net.zero_grad()
    losses, z = net.losses()
    from_name(name).backward(losses, shared=net.shared(method), features=z if method.place == "features" else None)
    assert same(found, net.grads(), 0.0)


def test_what_is_no_closure_is_refused() -> None:
    net = Net()
    with pytest.raises(RequestError, match=r"backward\(\) got list; a scalar loss by task's name.*Pass for example"):
        EqualWeighting().backward([net.losses()[0]["t.0"]])  # pyrefly: ignore
    with pytest.raises(RequestError, match=r"closure returned NoneType; the losses by task were expected.*Return"):
        EqualWeighting().backward(lambda: None)  # pyrefly: ignore
    with pytest.raises(RequestError, match=r"closure and features= beside it.*Return them from it: \(losses, features"):
        CAGrad().backward(net.losses, features=net.losses()[1])
    with pytest.raises(RequestError, match=r"SAM evaluates the losses at other parameters.*backward\(closure"):
        SAM().backward(net.losses()[0])
    with pytest.raises(RequestError, match="No loss was given"):
        SAM().backward(dict)
    with pytest.raises(RequestError, match=r"Task 't.0' has a loss of nan"):
        SAM().backward(lambda: {"t.0": net.losses()[0]["t.0"] * float("nan")})


@pytest.mark.parametrize("kind", [SAM, FMTL, SAMO])
def test_a_closure_that_draws_another_batch_is_found_out(kind: type[Balancer]) -> None:
    net, calls = Net(), []

    def closure() -> dict[str, Tensor]:
        calls.append(1)
        return net.losses(tasks=[0, 1] if len(calls) == 1 else [1])[0]

    with pytest.raises(RequestError, match=r"Task 't.0' had a loss at the closure's first call.*outside the closure"):
        kind(beta=0.0).backward(closure, shared=net.trunk.parameters()) if kind is SAMO else kind().backward(
            closure, shared=net.trunk.parameters()
        )


# What looking around must leave alone ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [SAM, FMTL, SAMO])
def test_parameters_come_back_to_the_bit(kind: type[Balancer]) -> None:
    net = Net()
    before = [p.detach().clone() for p in net.parameters()]
    step(kind(rho=0.3), net)  # pyrefly: ignore
    assert all(map(torch.equal, before, net.parameters()))

    def failing() -> dict[str, Tensor]:
        if net.calls:
            assert not all(map(torch.equal, before, net.parameters()))
            raise ZeroDivisionError
        return net.losses()[0]

    net.calls, method = 0, kind()
    for p, old in zip(net.parameters(), range(100), strict=False):
        p.grad = torch.full_like(p, float(old))
    held = net.grads()
    with pytest.raises(ZeroDivisionError):
        method.backward(failing, shared=net.trunk.parameters())
    assert all(map(torch.equal, before, net.parameters()))
    assert all(map(torch.equal, held, net.grads()))


@pytest.mark.parametrize("name", [*wrappers(), "sam+moco", "f-mtl+equal", "gradient-noise+samo+pcgrad"])
def test_what_grad_held_is_added_to(name: str) -> None:
    if name == "accumulation":
        return  # below: it fills nothing at most steps
    net = Net()
    found = step(from_name(name), net)
    for p in net.parameters():
        p.grad = torch.full_like(p, 7.0)
    method = from_name(name)
    method.backward(net.closure(method), shared=net.shared(method))
    assert same([grad - 7.0 for grad in net.grads()], found)


@pytest.mark.parametrize("kind", [SAM, FMTL, SAMO])
def test_normalisation_counts_a_batch_once_and_dropout_draws_the_same(kind: type[Balancer]) -> None:
    net, plain = Net(nn.BatchNorm1d(5), nn.Dropout(0.5)), Net(nn.BatchNorm1d(5), nn.Dropout(0.5))
    torch.manual_seed(3)
    method = kind(EqualWeighting(), rho=0.0)  # pyrefly: ignore
    found = step(method, net)
    after = torch.rand(1)
    assert int(net.trunk[1].num_batches_tracked) == 1
    torch.manual_seed(3)
    expected = step(EqualWeighting(), plain)
    assert torch.equal(after, torch.rand(1))
    assert same(found, expected)
    assert torch.equal(net.trunk[1].running_mean, plain.trunk[1].running_mean)
    assert net.calls > plain.calls


@pytest.mark.parametrize("make", [lambda: SAM(rho=0.5), lambda: FMTL(rho=0.5), lambda: SAMO(rho=0.5, mu=0.3)])
def test_autocast_around_it_all_sees_the_moved_weights(make: Callable[[], Balancer]) -> None:
    def found(*, outside: bool) -> list[Tensor]:
        net = Net().float()
        x, y = net.x.float(), net.y.float()

        def closure() -> dict[str, Tensor]:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=not outside):
                z = net.trunk(x)
                outputs = [head(z).float() for head in net.heads]
            return {f"t.{k}": (output - y[k]).square().mean() for k, output in enumerate(outputs)}

        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=outside):
            make().backward(closure, shared=net.trunk.parameters())
        return net.grads()

    assert same(found(outside=True), found(outside=False), 1e-2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.compile's own parts
@pytest.mark.parametrize("name", ["sam", "f-mtl", "samo", "rep-mtl"])
def test_a_compiled_trunk_gives_the_same(name: str) -> None:
    eager, compiled = Net(nn.BatchNorm1d(5)), Net(nn.BatchNorm1d(5))
    modules = [compiled.trunk]
    compiled.trunk = torch.compile(compiled.trunk, backend="aot_eager")
    with torch._functorch.config.patch(donated_buffer=False):  # a graph that is kept cannot give its buffers away
        for number in range(2):
            assert same(step(from_name(name), compiled), step(from_name(name), eager), 1e-6), number
    assert torch.equal(modules[0][1].num_batches_tracked, eager.trunk[1].num_batches_tracked)
    assert torch.allclose(modules[0][1].running_mean, eager.trunk[1].running_mean)


@pytest.mark.parametrize("kind", INNER)
def test_the_methods_state_sees_a_batch_once(kind: type[Balancer]) -> None:
    net, plain = Net(), Net()
    method, inner = SAM(kind(), rho=0.0), kind()
    for number in range(3):
        assert same(step(method, net), step(inner, plain)), number
    assert {key.removeprefix("inner.") for key in method.state_dict()} == set(inner.state_dict())
    for mine, its in zip(method.parameters(), inner.parameters(), strict=True):
        assert torch.equal(mine.grad, its.grad)


# SAM ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("adaptive", "expected"), [(False, 2.5 * 4 + 6 * 1.5), (True, 3.0 * 4 + 6 * 2.0)])
def test_sam_by_hand(adaptive: bool, expected: float) -> None:
    # At θ = 2 the sum's slope is positive; the ascent is ρ = 0.5, or ρ |θ| = 1 relative to θ. L' = 4 θ and 6 (θ − 1).
    theta = scalar(2.0)
    SAM(rho=0.5, adaptive=adaptive).backward(lambda: {"a": 2 * theta**2, "b": 3 * (theta - 1) ** 2})
    assert theta.grad.item() == pytest.approx(expected)
    assert theta.item() == 2.0


def test_sam_climbs_along_the_direction_of_the_method_inside() -> None:
    # Nash's direction of orthogonal gradients (6, 0) and (0, 1) is (1, 1): ε = ρ (1, 1)/√2, not ρ (6, 1)/√37.
    theta = torch.tensor([1.0, 1.0], dtype=torch.float64, requires_grad=True)
    seen = []

    def closure() -> dict[str, Tensor]:
        seen.append(theta.detach().clone())
        return {"a": 3 * theta[0] ** 2, "b": 0.5 * theta[1] ** 2}

    SAM(NashMTL(), rho=0.1).backward(closure, shared=[theta])
    offset = seen[1] - seen[0]
    assert float(offset.norm()) == pytest.approx(0.1)
    assert float(offset[0] - offset[1]) == pytest.approx(0.0, abs=1e-6)


# F-MTL ----------------------------------------------------------------------------------------------------------------


def around(net: Net, task: int, rho: float) -> list[Tensor]:
    """One task's gradient at its own worst point nearby, by the slow way; zeros for what it does not reach."""
    parameters = list(net.parameters())
    shared = len(list(net.trunk.parameters()))
    grads = torch.autograd.grad(net.losses()[0][f"t.{task}"], parameters, allow_unused=True)
    grads = [torch.zeros_like(p) if grad is None else grad for p, grad in zip(parameters, grads, strict=True)]
    moved = copy.deepcopy(net)
    with torch.no_grad():
        for part in (slice(None, shared), slice(shared, None)):
            norm = math.sqrt(sum(float(grad.square().sum()) for grad in grads[part]))
            for p, grad in zip(list(moved.parameters())[part], grads[part], strict=True):
                p += rho * grad / norm
    found = torch.autograd.grad(moved.losses()[0][f"t.{task}"], list(moved.parameters()), allow_unused=True)
    return [torch.zeros_like(p) if grad is None else grad for p, grad in zip(parameters, found, strict=True)]


def test_fmtl_with_equal_weights_is_the_sum_of_the_tasks_sharp_gradients() -> None:
    net = Net()
    expected = [sum(parts) for parts in zip(*(around(net, task, 0.3) for task in range(3)), strict=True)]
    net.calls = 0
    found = step(FMTL(EqualWeighting(), rho=0.3), net)
    assert net.calls == 4
    assert same(found, expected)
    assert not same(found, step(EqualWeighting(), net), 1e-3)


@pytest.mark.parametrize("inner", [CAGrad(), MGDA(normalisation="l2"), FairGrad(), NashMTL()])
def test_fmtl_balances_falling_and_flattening_apart(inner: Balancer) -> None:
    net, size = Net(), 25
    sharp = torch.stack([torch.cat([g.flatten() for g in around(net, task, 0.3)])[:size] for task in range(3)])
    plain = torch.stack([torch.cat([g.flatten() for g in around(net, task, 0.0)])[:size] for task in range(3)])
    losses, _ = net.losses()
    expected = torch.zeros(size, dtype=torch.float64)
    for rows in (plain, sharp - plain):
        vector = torch.zeros(size, dtype=torch.float64, requires_grad=True)
        linear = {name: row @ vector + losses[name].detach() for name, row in zip(losses, rows, strict=True)}
        copy.deepcopy(inner).backward(linear, shared=[vector])
        expected += vector.grad
    found = torch.cat([grad.flatten() for grad in step(FMTL(inner, rho=0.3), net)])[:size]
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-8)


def test_fmtl_by_hand() -> None:
    # At θ = 1: slopes 2 and −4 (of θ² and 2 (θ − 2)²), so the tasks climb to 1.1 and 0.9: slopes 2.2 and −4.4; and the
    # heads, h² at h = 3 and −1, climb to 3.1 and −1.1.
    theta, heads = scalar(1.0), [scalar(3.0), scalar(-1.0)]
    FMTL(EqualWeighting(), rho=0.1).backward(
        lambda: {"a": theta**2 + heads[0] ** 2, "b": 2 * (theta - 2) ** 2 + heads[1] ** 2}, shared=[theta]
    )
    assert [leaf.grad.item() for leaf in (theta, *heads)] == pytest.approx([-2.2, 6.2, -2.2])


def test_fmtl_weights_heads_where_the_method_does() -> None:
    net = Net()
    weights = list(RandomLossWeighting(seed=4).backward(net.losses()[0]).weights.values())
    net.zero_grad()
    found = step(FMTL(RandomLossWeighting(seed=4), rho=0.3), net)
    parts = [[weight * grad for grad in around(net, task, 0.3)] for task, weight in enumerate(weights)]
    assert same(found, [sum(grads) for grads in zip(*parts, strict=True)])


def test_a_loss_that_is_not_finite_nearby_keeps_its_own_gradient_where_the_user_asks() -> None:
    def losses(theta: Tensor) -> dict[str, Tensor]:
        bad = float("nan") if theta.item() != 1.0 else 1.0
        return {"a": theta**2 * bad, "b": 3 * theta}

    theta = scalar()
    step_ = FMTL(EqualWeighting(skip_bad=True), rho=0.1).backward(lambda: losses(theta), shared=[theta])
    assert theta.grad.item() == pytest.approx(2.0 + 3.0)
    assert step_.skipped == ()
    with pytest.raises(RequestError, match=r"Task 'a' has a loss of nan"):
        FMTL(EqualWeighting()).backward(lambda: losses(theta), shared=[theta])
    assert theta.item() == 1.0


# SAMO -----------------------------------------------------------------------------------------------------------------


def test_samo_by_hand() -> None:
    # With one shared number ĝ_k has the sign of L_k' and the mean's length. At θ = 1: slopes 1 and −6, their mean −2.5;
    # e_1 = 0.4 (−2.5) + 0.6 (2.5) > 0, e_2 < 0: slopes 1.1 and −6.3 at 1.1 and 0.9.
    theta = scalar()
    calls = []

    def closure() -> dict[str, Tensor]:
        calls.append(torch.is_grad_enabled())
        return {"a": 0.5 * theta**2, "b": 1.5 * (theta - 3) ** 2}

    SAMO(EqualWeighting(), rho=0.1, beta=0.6).backward(closure, shared=[theta])
    assert theta.grad.item() == pytest.approx(1.1 - 6.3)
    assert (calls.count(True), calls.count(False)) == (3, 4)


@pytest.mark.parametrize("kind", [FMTL, partial(SAMO, beta=0.6)])
def test_adaptive_distance_is_relative_to_the_parameter(kind: Callable[..., Balancer]) -> None:
    # At θ = 2 slopes 2 and −3: the tasks climb by ρ |θ| = 0.2 to 2.2 and 1.8, where slopes are 2.2 and −3.6.
    theta = scalar(2.0)
    method = kind(EqualWeighting(), rho=0.1, adaptive=True)
    method.backward(lambda: {"a": 0.5 * theta**2, "b": 1.5 * (theta - 3) ** 2}, shared=[theta])
    assert theta.grad.item() == pytest.approx(2.2 - 3.6)


def test_samo_without_its_own_part_climbs_along_the_mean() -> None:
    net = Net()
    found = step(SAMO(EqualWeighting(), rho=0.3, beta=0.0), net)
    parameters, shared = list(net.parameters()), len(list(net.trunk.parameters()))
    mean = torch.autograd.grad(sum(net.losses()[0].values()) / 3, parameters)
    expected = [torch.zeros_like(p) for p in parameters]
    for task in range(3):
        moved = copy.deepcopy(net)
        own = range(shared + 2 * task, shared + 2 * task + 2)
        with torch.no_grad():
            for part in (range(shared), own):
                norm = math.sqrt(sum(float(mean[place].square().sum()) for place in part))
                for place in part:
                    list(moved.parameters())[place].add_(0.3 * mean[place] / norm)
        grads = torch.autograd.grad(moved.losses()[0][f"t.{task}"], list(moved.parameters()), allow_unused=True)
        expected = [total if grad is None else total + grad for total, grad in zip(expected, grads, strict=True)]
    assert same(found, expected)


def test_samos_estimate_points_uphill_and_follows_its_seed() -> None:
    net = Net()
    first, second, other = (step(SAMO(rho=0.3, beta=1.0, seed=seed), net) for seed in (0, 0, 1))
    assert same(first, second, 0.0)
    assert not same(first, other, 1e-6)
    method = SAMO(rho=0.3, beta=1.0)
    assert not same(step(method, net), step(method, net), 1e-6)
    losses = []
    net.heads.requires_grad_(requires_grad=False)  # they climb on their own gradient
    for seed in range(20):
        seen = []

        def closure(seen: list[float] = seen) -> dict[str, Tensor]:
            seen.append(net.losses()[0]["t.0"].item())
            return net.losses(tasks=[0])[0]

        SAMO(rho=0.05, beta=1.0, seed=seed).backward(closure, shared=net.trunk.parameters())
        losses.append(seen[-1] - seen[0])
    assert min(losses) > 0


# Rep-MTL --------------------------------------------------------------------------------------------------------------


class Deep(nn.Module):
    """Heads that are not linear, above features of any shape."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.shape = shape
        width = math.prod(shape)
        self.trunk = nn.Linear(3, width)
        self.heads = nn.ModuleList([nn.Sequential(nn.Linear(width, 4), nn.Tanh(), nn.Linear(4, 1)) for _ in range(2)])
        self.double()
        self.x = torch.randn(4, 3, generator=torch.Generator().manual_seed(1)).double()

    def losses(self) -> tuple[dict[str, Tensor], Tensor]:
        z = torch.tanh(self.trunk(self.x)).reshape(4, *self.shape)
        return {f"t.{k}": (head(z.flatten(1)) - k - 1).square().mean() for k, head in enumerate(self.heads)}, z


@pytest.mark.parametrize("inner", [EqualWeighting, CAGrad, MoCo, UncertaintyWeighting])
def test_rep_mtl_without_regularisers_is_the_method_inside(inner: type[Balancer]) -> None:
    assert same(step(RepMTL(inner(), tsr=0.0, csa=0.0), Net()), step(inner(), Net()))


@pytest.mark.parametrize("shape", [(6,), (3, 4), (2, 3, 2)])
def test_rep_mtls_regularisers_gradient_is_that_of_finite_differences(shape: tuple[int, ...]) -> None:
    method, net = RepMTL(tsr=0.7, csa=1.3, temperature=0.4), Deep(shape)
    losses, z = net.losses()
    sum(losses.values()).backward()
    plain = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    losses, z = net.losses()
    method.backward(losses, features=z)

    def regulariser() -> float:
        losses, z = net.losses()
        return method.regulariser(losses, [z]).item()

    for p, base in zip(net.parameters(), plain, strict=True):
        place = int((p.grad - base).abs().argmax())
        values = []
        for sign in (1, -1):
            p.data.view(-1)[place] += sign * 1e-6
            values.append(regulariser())
            p.data.view(-1)[place] -= sign * 1e-6
        expected = (values[0] - values[1]) / 2e-6
        assert (p.grad - base).view(-1)[place].item() == pytest.approx(expected, rel=1e-4, abs=1e-8)
    assert max(float((p.grad - base).abs().max()) for p, base in zip(net.parameters(), plain, strict=True)) > 1e-4


@pytest.mark.parametrize(("shape", "channels_first"), [((6,), (6, 1)), ((3, 4), (4, 3)), ((2, 3, 2), (2, 6))])
def test_rep_mtls_regulariser_is_the_sum_of_both_parts(shape: tuple[int, ...], channels_first: tuple[int, ...]) -> None:
    losses, z = Deep(shape).losses()
    saliency = torch.stack([torch.autograd.grad(loss, z, retain_graph=True)[0] for loss in losses.values()])
    saliency = saliency.transpose(2, 3) if len(shape) == 2 else saliency.reshape(2, 4, *channels_first)
    assert saliency.shape == (2, 4, *channels_first)
    expected = 0.7 * entropy(saliency) + 1.3 * alignment(saliency, 0.4)
    found = RepMTL(tsr=0.7, csa=1.3, temperature=0.4).regulariser(losses, [z])
    assert found.item() == pytest.approx(expected.item())
    twice = RepMTL(tsr=0.7, csa=1.3, temperature=0.4).regulariser(losses, [z, z])
    assert twice.item() == pytest.approx(2 * expected.item())


def test_entropy_by_hand() -> None:
    one, two = torch.tensor([3.0, 1.0]), torch.tensor([-2.0, -2.0])  # channels (C = 2) of one row and place
    both = torch.stack([one, two]).reshape(2, 1, 2, 1)
    assert entropy(both).item() == pytest.approx(math.log(2))  # |means| 2 and 2
    assert entropy(both[:1]).item() == 0.0
    lone = torch.stack([one, torch.zeros(2)]).reshape(2, 1, 2, 1)
    assert entropy(lone).item() == pytest.approx(0.0)
    assert entropy(torch.zeros(2, 1, 2, 1)).item() == 0.0
    opposed = torch.tensor([[3.0, -1.0], [2.0, 2.0]]).reshape(2, 1, 2, 1)  # channels cancel: |means| 1 and 2
    assert entropy(opposed).item() == pytest.approx(math.log(3) - 2 / 3 * math.log(2))
    assert entropy(1e-30 * both).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("size", [(2, 3, 4, 5), (3, 4, 6, 1), (1, 2, 2, 9)])
def test_alignment_is_that_of_the_matrices_themselves(size: tuple[int, ...]) -> None:
    saliency = torch.randn(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def cosine(first: Tensor, second: Tensor) -> float:
        return float((first * second).sum() / (first.norm() * second.norm()))

    num_tasks, num_rows = size[:2]
    anchors = [saliency[:, b].mean(dim=2).T for b in range(num_rows)]
    anchors = [anchor @ anchor.T for anchor in anchors]
    total = 0.0
    for b in range(num_rows):
        tasks = [saliency[k, b] @ saliency[k, b].T for k in range(num_tasks)]
        top = sum(math.exp(cosine(anchors[b], task) / 0.3) for task in tasks)
        bottom = sum(math.exp(cosine(anchors[b], anchors[c]) / 0.3) for c in range(num_rows) if c != b)
        total -= math.log(top / bottom) / num_rows
    assert alignment(saliency, 0.3).item() == pytest.approx(total)
    assert alignment(saliency[:, :1], 0.3).item() == 0.0
    assert torch.isfinite(alignment(torch.zeros_like(saliency), 0.3))


def test_rep_mtl_wants_features() -> None:
    with pytest.raises(
        RequestError, match=r"RepMTL reads the losses' gradients at the shared features.*Pass features=z"
    ):
        RepMTL().backward(Net().losses()[0])


# Noise, clipping, normalised descent ----------------------------------------------------------------------------------


@pytest.mark.parametrize("inner", INNER)
def test_no_noise_and_wide_limits_are_the_method_inside(inner: type[Balancer]) -> None:
    expected = step(inner(), Net())
    assert same(step(GradientNoise(inner(), eta=0.0), Net()), expected, 0.0)
    assert same(step(ElementwiseClipping(inner(), limit=1e9), Net()), expected, 0.0)
    size = math.sqrt(sum(float(grad.square().sum()) for grad in expected))
    assert same(step(NormalisedDescent(inner(), length=size), Net()), expected, 1e-9)


def test_noise_has_the_variance_of_its_step_and_goes_on_after_a_restart() -> None:
    def noise(method: GradientNoise) -> Tensor:
        theta = torch.zeros(100_000, requires_grad=True)
        theta.grad = torch.ones_like(theta)
        method.backward({"a": (0.0 * theta).sum()})
        return theta.grad - 1

    method = GradientNoise(eta=0.3, gamma=0.55, seed=2)
    found = [noise(method) for _ in range(4)]
    for number in (0, 3):
        assert float(found[number].var()) == pytest.approx(0.3 / (1 + number) ** 0.55, rel=0.03)
        assert float(found[number].mean()) == pytest.approx(0.0, abs=0.01)
    assert abs(float(torch.corrcoef(torch.stack(found[:2]))[0, 1])) < 0.02
    resumed = GradientNoise(eta=0.3, gamma=0.55, seed=2)
    resumed.load_state_dict(method.state_dict())
    assert torch.equal(noise(resumed), noise(method))
    method.reset()
    assert torch.equal(noise(method), found[0])


def test_clipping_and_normalisation_by_hand() -> None:
    for method, expected in (
        (ElementwiseClipping(limit=2.0), [2.0, -2.0, 0.5]),
        (NormalisedDescent(length=2.0), [2 * 3 / 7, -2 * 6 / 7, 2 * 2 / 7]),
    ):
        theta = torch.tensor([1.0, 1.0], dtype=torch.float64, requires_grad=True)
        head = scalar()
        last = expected[2]
        row = torch.tensor([3.0, -6.0], dtype=torch.float64)
        method.backward({"a": row @ theta + (2.0 if last != 0.5 else 0.5) * head})
        assert [*theta.grad.tolist(), head.grad.item()] == pytest.approx(expected)
    theta = scalar()
    NormalisedDescent().backward({"a": 0 * theta})
    assert theta.grad.item() == 0.0
    NormalisedDescent().backward({"a": 1e250 * (theta - 1)})
    assert theta.grad.item() == pytest.approx(1.0)


def test_a_sparse_gradient_is_reworked_where_it_is() -> None:
    table = nn.Embedding(5, 2, sparse=True)
    ElementwiseClipping(limit=0.5).backward({"a": 3 * table(torch.tensor([1, 1])).sum()})
    assert table.weight.grad.is_sparse
    assert table.weight.grad.to_dense()[1].tolist() == [0.5, 0.5]
    assert float(table.weight.grad.to_dense().abs().sum()) == 1.0


# Accumulation ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inner", [EqualWeighting, CAGrad, UncertaintyWeighting, DBMTL, GCond, RandomLossWeighting])
def test_equal_parts_are_one_batch(inner: type[Balancer]) -> None:
    net = Net()
    method, whole = Accumulation(inner(), num_batches=3), inner()
    whole.place = "parameters"
    for number in range(2):
        expected = step(whole, net)
        net.zero_grad()
        for part in range(3):
            found = method.backward(net.closure(method, slice(4 * part, 4 * part + 4)), shared=net.trunk.parameters())
            assert found.ready == (part == 2)
            assert (net.trunk[0].weight.grad is not None) == found.ready
            assert (net.heads[0].weight.grad is not None) == found.ready
        assert same(net.grads(), expected, 1e-8), number


def test_one_task_a_micro_batch_takes_turns_across_windows() -> None:
    net, method = Net(), Accumulation(EqualWeighting(), num_batches=2, share="one")
    turns = []
    for number in range(6):
        chosen = method.choose(["t.0", "t.1", "t.2"])
        turns.append(chosen)
        net.zero_grad()
        found = method.backward(net.closure(method), shared=net.trunk.parameters())
        assert found.ready == (number % 2 == 1)
        if found.ready:
            reached = {f"t.{k}" for k, head in enumerate(net.heads) if head.weight.grad is not None}
            assert reached == set(found.tasks) == {turns[-1][0], turns[-2][0]}
    assert turns == [("t.0",), ("t.1",), ("t.2",)] * 2


def test_one_task_a_micro_batch_is_the_mean_over_its_own() -> None:
    net, method = Net(), Accumulation(EqualWeighting(), num_batches=6, share="one")
    for part in range(6):
        method.backward(net.closure(method, slice(2 * part, 2 * part + 2)), shared=net.trunk.parameters())
    found = net.grads()
    net.zero_grad()
    parts = [[slice(2 * k, 2 * k + 2), slice(2 * k + 6, 2 * k + 8)] for k in range(3)]
    sum(0.5 * net.losses(part, [k])[0][f"t.{k}"] for k in range(3) for part in parts[k]).backward()
    assert same(found, net.grads())


def test_a_task_is_averaged_over_the_micro_batches_that_had_it() -> None:
    net, method = Net(), Accumulation(EqualWeighting(), num_batches=2)
    method.backward(net.closure(method, slice(0, 6), [0, 1]), shared=net.trunk.parameters())
    method.backward(net.closure(method, slice(6, 12), [1, 2]), shared=net.trunk.parameters())
    found = net.grads()
    net.zero_grad()
    first, second = net.losses(slice(0, 6))[0], net.losses(slice(6, 12))[0]
    (first["t.0"] + 0.5 * (first["t.1"] + second["t.1"]) + second["t.2"]).backward()
    assert same(found, net.grads())


@pytest.mark.parametrize("share", ["every", "one"])
def test_accumulation_goes_on_in_the_middle_of_a_window(share: Share) -> None:
    net = Net()

    def go_on(method: Balancer, parts: range) -> list[Tensor]:
        net.zero_grad()
        for part in parts:
            rows = slice(2 * (part % 6), 2 * (part % 6) + 2)
            method.backward(net.closure(method, rows, [0, 1] if part == 1 else None), shared=net.trunk.parameters())
        return net.grads()

    first = Accumulation(num_batches=6, share=share)
    start = go_on(first, range(6))
    expected = go_on(first, range(6, 12))
    second = Accumulation(num_batches=6, share=share)
    go_on(second, range(8))
    third = Accumulation(num_batches=6, share=share)
    third.load_state_dict(dict(sorted(second.state_dict().items())))
    for method in (third, copy.deepcopy(second), second):
        assert same(go_on(method, range(8, 12)), expected, 1e-12)
    go_on(second, range(12, 14))
    second.reset()
    assert same(go_on(second, range(6)), start, 0.0)


def test_accumulation_refuses_other_parameters_in_a_window() -> None:
    first, second, method = Net(), Net(), Accumulation()
    method.backward(first.closure(method), shared=first.trunk.parameters())
    with pytest.raises(RequestError, match=r"Task 't.0' reaches other parameters of its own.*reset\(\)"):
        method.backward(second.closure(method), shared=second.trunk.parameters())


# Every method inside --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, kind in methods().items() if not kind.needs_features])
def test_every_method_decides_from_given_gradients_as_from_its_own(name: str) -> None:
    net, plain = Net(), from_name(name)
    still, twice = SAMO(from_name(name), rho=0.0), Accumulation(from_name(name), num_batches=2)
    count = len(list(net.parameters())) if name != "momentum-config" else 2  # which fills the chosen head alone
    for number, tasks in enumerate((None, [2, 0], None)):
        plain.place = "parameters"
        expected = step(plain, net, tasks=tasks)
        assert same(step(still, net, tasks=tasks)[:count], expected[:count], 1e-6), number
        net.zero_grad()
        for _ in range(2):
            twice.backward(net.closure(twice, tasks=tasks), shared=net.trunk.parameters())
        assert same(net.grads()[:count], expected[:count], 1e-6), number


@pytest.mark.parametrize("name", methods())
def test_sam_with_no_radius_is_the_method_inside(name: str) -> None:
    net, plain, method = Net(), from_name(name), SAM(from_name(name), rho=0.0)
    for tasks in (None, [2, 0], None):
        assert same(step(method, net, tasks=tasks), step(plain, net, tasks=tasks))


# FULLER ---------------------------------------------------------------------------------------------------------------


def test_fuller_brings_modalities_to_one_level_and_leaves_the_fusion() -> None:
    torch.manual_seed(0)
    encoders = nn.ModuleList([nn.Linear(3, 4), nn.Linear(2, 4)]).double()
    fusion, heads = nn.Linear(8, 5).double(), nn.ModuleList([nn.Linear(5, 1), nn.Linear(5, 1)]).double()
    x = [torch.randn(6, 3).double(), 1e-3 * torch.randn(6, 2).double()]

    def forward(scale: float = 1.0) -> tuple[dict[str, Tensor], list[Tensor]]:
        parts = [encoder(value) for encoder, value in zip(encoders, x, strict=True)]
        parts[1] = parts[1] * scale
        z = fusion(torch.cat([parts[0], 10 * parts[1]], dim=1))
        return {f"t.{k}": (head(z) - k).square().mean() for k, head in enumerate(heads)}, [z, *parts]

    losses, features = forward()
    grads = [torch.autograd.grad(loss, features[0], retain_graph=True)[0] for loss in losses.values()]
    weights = list(IMTLG().backward(forward()[0], shared=[*encoders.parameters(), *fusion.parameters()]).weights)
    for module in (encoders, fusion, heads):
        module.zero_grad()
    step_ = FULLER().backward(losses, features=features)
    assert list(step_.weights) == weights
    direction = sum(step_.weights[f"t.{k}"] * grad for k, grad in enumerate(grads))
    units = torch.stack([grad.flatten() / grad.norm() for grad in grads])
    along = units @ direction.flatten()
    assert float(along[0]) == pytest.approx(float(along[1]))
    losses, features = forward()
    parts = torch.autograd.grad(features[0], [*features[1:], fusion.weight], direction, retain_graph=True)
    level = float(parts[0].norm() + parts[1].norm()) / 2
    assert torch.allclose(fusion.weight.grad, parts[2])
    for encoder, part, output in zip(encoders, parts, features[1:], strict=False):
        expected = torch.autograd.grad(output, encoder.weight, part * (level / part.norm()), retain_graph=True)[0]
        assert torch.allclose(encoder.weight.grad, expected)
    losses, features = forward()
    own = torch.autograd.grad(losses["t.0"], heads[0].weight)[0]
    assert torch.allclose(heads[0].weight.grad, own)


def test_fuller_with_one_encoder_is_imtl_g_and_a_stranger_is_refused() -> None:
    def found(method: Balancer) -> list[Tensor]:
        net = Net()
        losses, z = net.losses()
        method.backward(losses, features=z)
        return net.grads()

    assert same(found(FULLER()), found(IMTLG()))
    net = Net()
    hidden = net.trunk[0](net.x)
    z = net.trunk[1](hidden)
    losses = {f"t.{k}": head(z).square().mean() for k, head in enumerate(net.heads)}
    with pytest.raises(RequestError, match=r"2 modalities.*do not depend on number 2.*what each encoder hands"):
        FULLER().backward(losses, features=[z, hidden, z.detach().requires_grad_()])
    with pytest.raises(RequestError, match=r"FULLER calibrates gradients at the shared features.*features=\[z, camera"):
        FULLER().backward(net.losses()[0])


# Heads ----------------------------------------------------------------------------------------------------------------


class Doubling(Balancer):
    """Twice the shared gradient, and weights of their own for heads."""

    name = "doubling"

    def update(self, view: View) -> Update:
        return Update(torch.full((len(view.names),), 2.0), heads=torch.arange(1.0, len(view.names) + 1))


@pytest.mark.parametrize("place", ["features", "parameters"])
def test_heads_can_have_weights_of_their_own(place: str) -> None:
    net, method = Net(), Doubling()
    method.place = place  # pyrefly: ignore
    found = step(method, net)
    net.zero_grad()
    sum(net.losses()[0].values()).backward()
    shared = len(list(net.trunk.parameters()))
    factors = [2.0] * shared + [factor for k in range(3) for factor in [k + 1.0] * 2]
    assert same(found, [factor * grad for factor, grad in zip(factors, net.grads(), strict=True)])


@pytest.mark.parametrize("beta", [0.0, 0.9])
@pytest.mark.parametrize("place", ["features", "parameters"])
def test_db_mtls_heads_get_the_gradient_of_the_logarithm(beta: float, place: str) -> None:
    net, method = Net(), DBMTL(beta=beta)
    method.place = place  # pyrefly: ignore
    found = step(method, net)
    net.zero_grad()
    sum(loss.log() for loss in net.losses()[0].values()).backward()
    shared = len(list(net.trunk.parameters()))
    assert same(found[shared:], net.grads()[shared:])


# Names, composition, state --------------------------------------------------------------------------------------------


def test_names_compose_outermost_first() -> None:
    assert repr(from_name("f-mtl+cagrad")) == "FMTL(CAGrad())"
    assert repr(from_name("gradient-noise+f-mtl+mgda")) == "GradientNoise(FMTL(MGDA()))"
    assert repr(from_name("samo")) == "SAMO(FairGrad())"
    assert set(wrappers()) == {
        "accumulation", "element-wise-clipping", "f-mtl", "gradient-noise", "normalised-descent", "rep-mtl", "sam",
        "samo",
    }  # fmt: skip
    assert not set(wrappers()) & set(methods())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cagrad+f-mtl", r"puts the method 'cagrad' around another.*Put it last, as in 'f-mtl\+cagrad'"),
        ("f-mlt+cagrad", r"no balancing method 'f-mlt'. Did you mean 'f-mtl'"),
        ("f-mtl+cagrda", r"no balancing method 'cagrda'. Did you mean 'cagrad'"),
        ("f-mtl+", r"no balancing method ''"),
        ("f-mtl+sam", r"FMTL hands the tasks' gradients.*SAM\(EqualWeighting\(\)\) needs the network.*leave one"),
        ("samo+gradient-noise+sam", r"SAMO hands.*needs the network"),
        ("accumulation+sdmgrad", r"Accumulation hands.*SDMGrad\(\) needs gradients at features"),
        ("f-mtl+accumulation", r"Accumulation\(GCond\(\)\) needs the network"),
    ],
)
def test_names_that_do_not_go_together_are_refused(name: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        from_name(name)


@pytest.mark.parametrize("name", ["sam+accumulation", "rep-mtl+accumulation"])
def test_accumulation_inside_is_refused(name: str) -> None:
    net, method = Net(), from_name(name)
    with pytest.raises(RequestError, match=r"an Accumulation inside holds it back\. Leave one"):
        method.backward(net.closure(method), shared=net.shared(method))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SAM(rho=-1.0), r"SAM got rho=-1.0; a finite radius of 0 or more"),
        (lambda: FMTL(rho=math.inf), r"FMTL got rho=inf"),
        (lambda: SAMO(beta=2.0), r"SAMO got beta=2.0 and mu=0.01; 0 ≤ beta ≤ 1"),
        (lambda: GradientNoise(eta=-0.1), r"GradientNoise got eta=-0.1.*eta=0.01 and gamma=0.55"),
        (lambda: ElementwiseClipping(limit=0.0), r"ElementwiseClipping got limit=0.0; a number above 0"),
        (lambda: NormalisedDescent(length=math.nan), r"NormalisedDescent got length=nan"),
        (lambda: Accumulation(num_batches=0), r"Accumulation got num_batches=0.*Try num_batches=4"),
        (lambda: RepMTL(temperature=0.0), r"RepMTL got tsr=1.0, csa=1.0 and temperature=0.0.*Try 1, 1 and 0.5"),
    ],
)
def test_bad_settings_are_refused(build: Callable[[], Balancer], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        build()


@pytest.mark.parametrize("kind", [FMTL, SAMO, Accumulation])
def test_gradients_are_compared_at_parameters(kind: type[Balancer]) -> None:
    net, method = Net(), kind()
    with pytest.raises(RequestError, match=r"at the shared parameters and was told of none. Pass shared="):
        method.backward(net.losses)
    head = net.heads[0]
    with pytest.raises(RequestError, match=r"Task 't.1' has a loss that does not depend on the shared parameters"):
        kind().backward(lambda: net.losses()[0], shared=head.parameters())
    frozen = nn.Linear(1, 1).requires_grad_(False)
    with pytest.raises(RequestError, match=r"no parameter that requires a gradient in shared="):
        kind().backward(lambda: net.losses()[0], shared=frozen.parameters())


@pytest.mark.parametrize("name", [*methods(), *wrappers()])
def test_repr_rebuilds(name: str) -> None:
    found = from_name(name)
    assert repr(eval(repr(found), vars(balance).copy())) == repr(found)


@pytest.mark.parametrize("kind", [*methods().values(), *wrappers().values()])
def test_every_argument_can_be_read_back(kind: type[Balancer]) -> None:
    assert all(hasattr(kind(), name) for name in inspect.signature(kind).parameters)


def test_repr_shows_what_is_not_the_default() -> None:
    method = FMTL(CAGrad(c=0.7, skip_bad=True), rho=2.0, adaptive=True)
    assert repr(method) == "FMTL(CAGrad(c=0.7, skip_bad=True), rho=2.0, adaptive=True)"
    assert repr(eval(repr(method), vars(balance).copy())) == repr(method)
    assert method.skip_bad
    turns = repr(Alternating({"g": ["a", "b"]}, probabilities={"g": 0.5}, seed=3))
    assert turns == "Alternating(groups={'g': ('a', 'b')}, probabilities={'g': 0.5}, seed=3)"
    assert repr(UncertaintyWeighting(["a"])) == "UncertaintyWeighting(tasks=('a',))"


@pytest.mark.parametrize("name", [*(name for name in wrappers() if name != "accumulation"), *COMBINATIONS])
def test_state_goes_on_in_a_fresh_instance_and_a_copy(name: str) -> None:
    net = Net()

    def go_on(method: Balancer) -> list[list[Tensor]]:
        found = []
        for tasks in (None, [2, 0], None):
            found.append(step(method, net, tasks=tasks))
            with torch.no_grad():
                for p in method.parameters():
                    p -= 0.1 * (torch.zeros_like(p) if p.grad is None else p.grad)
                    p.grad = None
        return found

    first = from_name(name)
    first.add_tasks([f"t.{k}" for k in range(3)])
    start = go_on(first)
    assert all(torch.isfinite(grad).all() for grads in start for grad in grads)
    second = from_name(name)
    second.add_tasks([f"t.{k}" for k in range(3)])
    second.load_state_dict({key: value.clone() for key, value in sorted(first.state_dict().items())})
    third = copy.deepcopy(first)
    expected = go_on(first)
    for method in (second, third):
        assert all(same(found, wanted, 1e-12) for found, wanted in zip(go_on(method), expected, strict=True))
    if not list(first.parameters()):
        first.reset()
        assert all(same(found, wanted, 1e-12) for found, wanted in zip(go_on(first), start, strict=True))


# In the training loop -------------------------------------------------------------------------------------------------


def trainer(name: str) -> tuple[Trainer, MultiTaskModel, list]:
    generator = np.random.default_rng(3)
    numbers = generator.normal(size=(300, 3)).astype(np.float32)
    targets = {"price": 2 * numbers[:, 0], "sold": (numbers[:, 1] > 0).astype(np.float32)}
    present = {"price": np.ones(300, dtype=bool), "sold": generator.random(300) < 0.5}
    rows = TableRows(Features(numbers, np.zeros((300, 0), dtype=np.int32)), targets, present)
    torch.manual_seed(0)
    tasks = [Regression("price", center=0.0, scale=2.0), Binary("sold", classes=(False, True))]
    encoder = TabularEncoder(bin_edges(rows.inputs["numbers"].numpy(), num_bins=8), [], width=8, dropout=0.1)
    model = MultiTaskModel(encoder, HardSharing(2, width=8), tasks, head_width=8)
    records: list = []
    loop = LoopSettings(max_epochs=3, batch_size=40, warmup_steps=2, learning_rate=5e-3)
    found = Trainer(model, rows, loop, balancer=from_name(name), stage="shared", emit=records.append)
    return found, model, records


@pytest.mark.parametrize("name", [*wrappers(), "rep-mtl+moco", "gradient-noise+f-mtl+famo", "fuller"])
def test_the_training_loop_gives_what_a_wrapper_asks_for(name: str) -> None:
    loop, model, records = trainer(name)
    before = copy.deepcopy(model.state_dict())
    trained = loop.fit(np.arange(200), np.arange(200, 300), clock=Clock())
    assert np.isfinite(list(trained.best.scores.values())).all()
    assert trained.best.scores["price"] < trained.best.constants["price"]
    assert any(not torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert set(next(record for record in records if record["event"] == "evaluate")["losses"]) == {"price", "sold"}
