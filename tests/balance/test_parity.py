"""The same gradients through motet and through TorchJD: equal where TorchJD is right, and shown where it is not.

It needs the packages of the dependency group `parity`; see `Makefile` for how they are installed.
"""

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from motet.balance import Balancer, from_name
from motet.balance._alignedmtl import AlignedMTL, Scale
from motet.balance._cagrad import CAGrad
from motet.balance._config import ConFIG
from motet.balance._dualproj import DualProj
from motet.balance._dwa import DWA
from motet.balance._excessmtl import ExcessMTL
from motet.balance._fairgrad import FairGrad
from motet.balance._famo import FAMO
from motet.balance._gradvac import GradVac
from motet.balance._imtlg import IMTLG
from motet.balance._imtll import IMTLL
from motet.balance._mgda import MGDA
from motet.balance._modo import MoDo
from motet.balance._nashmtl import NashMTL
from motet.balance._pcgrad import random_orders
from motet.balance._sdmgrad import descend
from motet.balance._stch import STCH
from motet.balance._uncertainty import UncertaintyWeighting
from motet.balance._upgrad import UPGrad

peer = pytest.importorskip("torchjd.aggregation", reason="torchjd is not installed (dependency group `parity`)")
scalar = pytest.importorskip("torchjd.scalarization")
linalg = pytest.importorskip("torchjd.linalg")

NUMBERS = (2, 3, 5, 9, 16)


def gradients(num_tasks: int, *, width: int = 24, seed: int = 0) -> Tensor:
    """Random gradients (T, P) of different lengths, which conflict here and there."""
    generator = torch.Generator().manual_seed(1000 * seed + num_tasks)
    rows = torch.randn(num_tasks, width, generator=generator, dtype=torch.float64)
    return rows * (0.2 + 3 * torch.rand(num_tasks, 1, generator=generator, dtype=torch.float64))


def direction(method: Balancer, rows: Tensor) -> Tensor:
    """Our direction (P,) for these gradients."""
    shared = torch.zeros(rows.shape[1], dtype=rows.dtype, requires_grad=True)
    method.backward({f"t{number}": (row * shared).sum() + 1 for number, row in enumerate(rows)}, shared=[shared])
    return shared.grad


def weights(method: Balancer, losses: Tensor) -> Tensor:
    """Our weights (T,) for losses of these values."""
    shared = torch.zeros((), dtype=losses.dtype, requires_grad=True)
    step = method.backward({f"t{number}": loss + shared for number, loss in enumerate(losses)})
    return torch.tensor(list(step.weights.values()), dtype=losses.dtype)


def slopes(scalarizer: Callable[[Tensor], Tensor], losses: Tensor) -> Tensor:
    """Their weights (T,): the scalarised loss by each loss."""
    values = losses.clone().requires_grad_()
    return torch.autograd.grad(scalarizer(values), values)[0]


# Where the peer is right --------------------------------------------------------------------------------------------


def projector() -> object:
    """Their projection on the dual cone without its ridge."""
    return linalg.QuadprogProjector(norm_eps=0.0, reg_eps=1e-11)


SAME: dict[str, tuple[Callable[[], Balancer], Callable[[int], Callable[[Tensor], Tensor]], float]] = {
    # name: (ours, theirs for T tasks and brought to our scale, relative tolerance)
    "upgrad": (UPGrad, lambda _: peer.UPGrad(projector=projector()), 1e-6),
    "dualproj": (DualProj, lambda _: peer.DualProj(projector=projector()), 1e-6),
    "config": (ConFIG, lambda _: peer.ConFIG(), 1e-6),
    "imtl-g": (IMTLG, lambda _: peer.IMTLG(), 1e-6),
    "cagrad": (CAGrad, lambda _: lambda rows: peer.CAGrad(0.4)(rows) / 1.16, 1e-3),
    "cagrad 1.5": (lambda: CAGrad(c=1.5), lambda _: lambda rows: peer.CAGrad(1.5)(rows) / 3.25, 1e-3),
    "fairgrad": (lambda: FairGrad(max_norm=None), lambda t: lambda rows: t * peer.FairGrad(2.0)(rows), 1e-4),
    "fairgrad 0.5": (
        lambda: FairGrad(alpha=0.5, max_norm=None),
        lambda t: lambda rows: t * peer.FairGrad(0.5)(rows),
        1e-4,
    ),
}


@pytest.mark.parametrize("num_tasks", NUMBERS)
@pytest.mark.parametrize("name", SAME)
def test_the_direction_is_theirs(name: str, num_tasks: int) -> None:
    ours, theirs, tolerance = SAME[name]
    for seed in range(3):
        rows = gradients(num_tasks, seed=seed)
        found, expected = direction(ours(), rows), theirs(num_tasks)(rows)
        assert float((found - expected).norm()) <= tolerance * float(expected.norm())


@pytest.mark.parametrize("num_tasks", NUMBERS)
@pytest.mark.parametrize("radius", [0.4, 1.5])
def test_where_cagrad_differs_from_theirs_the_worst_task_gains_more(radius: float, num_tasks: int) -> None:
    rows = gradients(num_tasks)
    found, theirs = direction(CAGrad(c=radius), rows), peer.CAGrad(radius)(rows) / (1 + radius**2)
    assert float((rows @ found).min()) >= float((rows @ theirs).min()) - 1e-9
    mean = rows.mean(dim=0)
    assert float(((1 + radius**2) * found - mean).norm()) <= radius * float(mean.norm()) * (1 + 1e-9)


@pytest.mark.parametrize("num_tasks", NUMBERS)
@pytest.mark.parametrize("scale", ["min", "median", "rmse"])
def test_aligned_mtl_is_theirs(scale: Scale, num_tasks: int) -> None:
    rows = gradients(num_tasks)
    expected = num_tasks * peer.AlignedMTL(scale_mode=scale)(rows)  # their preferences add up to one
    torch.testing.assert_close(direction(AlignedMTL(scale=scale), rows), expected, rtol=1e-7, atol=1e-9)


@pytest.mark.filterwarnings("ignore:You are solving a parameterized problem")
@pytest.mark.filterwarnings("ignore:Solution may be inaccurate")
@pytest.mark.parametrize("num_tasks", [2, 3, 5, 9])
def test_nash_mtl_is_theirs_to_the_precision_of_their_solver(num_tasks: int) -> None:
    pytest.importorskip("ecos", reason="ecos is not installed (dependency group `parity`, Python below 3.13)")
    theirs = peer.NashMTL(num_tasks, max_norm=1.0, update_weights_every=1, optim_niter=20)
    rows = gradients(num_tasks)
    found, expected = direction(NashMTL(), rows), theirs(rows)
    assert float((found - expected).norm()) <= 1e-2
    assert residual(rows, found) <= residual(rows, expected) + 1e-12


def residual(rows: Tensor, direction: Tensor) -> float:
    """How far a direction is from the bargaining solution up to scale: there all α_k · (g_k·d) are one number."""
    alpha = torch.linalg.lstsq(rows.T, direction.unsqueeze(1)).solution[:, 0]
    products = alpha * (rows @ direction)
    return float(products.max() / products.min() - 1)


@pytest.mark.parametrize("num_tasks", NUMBERS)
def test_pcgrad_is_theirs_in_the_same_order(num_tasks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    orders: Iterator[Tensor] = iter(random_orders(num_tasks, 0, 0))
    rows = gradients(num_tasks)
    found = direction(from_name("pcgrad"), rows)
    monkeypatch.setattr(torch, "randperm", lambda _: next(orders))
    torch.testing.assert_close(found, peer.PCGrad()(rows))


@pytest.mark.parametrize("num_tasks", NUMBERS)
def test_gradvac_is_theirs_in_the_same_order(num_tasks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = GradVac(beta=0.5), peer.GradVac(beta=0.5, eps=0.0)
    for step in range(4):
        rows = gradients(num_tasks, seed=step)
        found = direction(ours, rows)
        # Theirs draws an order of the other tasks, by their places among the others.
        places = [
            torch.tensor([int(j) - int(j > i) for j in order if j != i])
            for i, order in enumerate(random_orders(num_tasks, 0, step).tolist())
        ]
        drawn = iter(places)
        with monkeypatch.context() as patch:
            patch.setattr(torch, "randperm", lambda _, drawn=drawn: next(drawn))
            torch.testing.assert_close(found, theirs(rows))


@pytest.mark.parametrize("num_tasks", NUMBERS)
def test_graddrop_is_theirs_under_the_same_draw(num_tasks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = gradients(num_tasks)
    draw = torch.linspace(0.01, 0.99, rows.shape[1], dtype=torch.float64)
    monkeypatch.setattr(torch, "rand", lambda *_, **__: draw)
    torch.testing.assert_close(direction(from_name("graddrop"), rows), peer.GradDrop()(rows))


@pytest.mark.parametrize("num_tasks", NUMBERS)
def test_excess_mtl_is_theirs_where_the_first_step_is_their_warm_up(num_tasks: int) -> None:
    ours, theirs = ExcessMTL(step_size=0.3), peer.ExcessMTL(robust_step_size=0.3, n_warmup_steps=1)
    for step in range(5):
        rows = gradients(num_tasks, seed=step)
        torch.testing.assert_close(direction(ours, rows), num_tasks * theirs(rows), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("num_tasks", NUMBERS)
def test_the_descent_of_sdmgrad_is_theirs(num_tasks: int) -> None:
    matrix = gradients(num_tasks) @ gradients(num_tasks, seed=1).T
    diagonal = matrix.diagonal().clamp(min=0).sqrt().mean() ** 2 + 1e-8
    found = descend(matrix / diagonal, strength=0.3, num_steps=20)
    theirs = peer.SDMGradWeighting(lr=10.0, momentum=0.5, n_iter=20, lambda_=0.3)(matrix)
    torch.testing.assert_close((found + 0.3 / num_tasks) / 1.3, theirs)


@pytest.mark.parametrize("num_tasks", NUMBERS)
def test_modo_is_theirs_on_the_two_halves_of_the_batch(num_tasks: int) -> None:
    ours, theirs = MoDo(gamma=0.05), peer.MoDoWeighting(gamma=0.05, rho=0.1)
    for step in range(4):
        rows = gradients(num_tasks, width=24, seed=step)
        z = torch.zeros(8, 3, dtype=torch.float64).requires_grad_() * 1.0
        step_taken = ours.backward(
            {f"t{number}": (row.reshape(8, 3) * z).sum() + 1 for number, row in enumerate(rows)}, features=z
        )
        halves = [2 * rows.reshape(num_tasks, 8, 3)[:, start::2].sum(dim=1) for start in (0, 1)]
        matrix = halves[0] @ halves[1].T
        expected = theirs(0.5 * (matrix + matrix.T))
        torch.testing.assert_close(torch.tensor(list(step_taken.weights.values()), dtype=torch.float64), expected)


LOSSES = torch.tensor([4.0, 0.03, 250.0, 1.5], dtype=torch.float64)


def test_gls_is_theirs() -> None:
    torch.testing.assert_close(weights(from_name("gls"), LOSSES), slopes(scalar.GeometricMean(), LOSSES))


def test_random_weights_are_theirs_times_the_number_of_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = torch.tensor([0.3, -1.0, 2.0, 0.0], dtype=torch.float64)
    monkeypatch.setattr(torch, "randn", lambda *_, **__: draw)
    torch.testing.assert_close(weights(from_name("random"), LOSSES), 4 * slopes(scalar.Random(), LOSSES))


def test_dwa_is_theirs() -> None:
    ours, theirs = DWA(window=None), scalar.DWA()
    for step in range(12):
        losses = LOSSES * torch.tensor([0.9, 0.99, 0.7, 1.01]).double() ** step
        torch.testing.assert_close(weights(ours, losses), slopes(theirs, losses))
        if step % 3 == 2:
            ours.end_epoch()
            theirs.step()


def test_famo_is_theirs() -> None:
    ours, theirs = FAMO(), scalar.FAMO(4).double()
    for step in range(10):
        losses = LOSSES * torch.tensor([0.9, 0.99, 0.7, 1.01]).double() ** step
        torch.testing.assert_close(weights(ours, losses), slopes(theirs, losses), rtol=1e-5, atol=1e-9)
        after = losses * torch.tensor([0.95, 0.9, 0.8, 0.99]).double()
        ours.after_step({f"t{number}": loss for number, loss in enumerate(after)})
        theirs.update(after)


@pytest.mark.parametrize(("ours", "theirs"), [(UncertaintyWeighting, scalar.UW), (IMTLL, scalar.IMTLL)])
def test_learned_weights_are_theirs(ours: type, theirs: type) -> None:
    names = [f"t{number}" for number in range(4)]
    mine, other = ours(names), theirs(4)
    optimizers = [torch.optim.Adam(module.parameters(), lr=0.1) for module in (mine, other)]
    for _ in range(20):
        values = LOSSES.clone().requires_grad_()
        for optimizer in optimizers:
            optimizer.zero_grad()
        found = weights(mine, LOSSES)
        other(values).backward()
        torch.testing.assert_close(found, values.grad, rtol=1e-5, atol=1e-9)
        for optimizer in optimizers:
            optimizer.step()


@pytest.mark.parametrize("mu", [1.0, 0.3])
def test_stch_is_theirs_on_logarithms_relative_to_the_nadir(mu: float) -> None:
    ours, theirs = STCH(mu=mu, warm_up=1, nadir_steps=1), scalar.STCH(mu, weights=torch.ones(4).double())
    nadir = torch.tensor([3.0, 0.1, 100.0, 2.0], dtype=torch.float64)
    weights(ours, nadir)
    torch.testing.assert_close(
        weights(ours, LOSSES), slopes(lambda values: 4 * theirs(torch.log(values / nadir)), LOSSES)
    )


# Where the peer is not right ----------------------------------------------------------------------------------------


def test_mgda_is_theirs_for_two_tasks_and_shorter_for_many() -> None:
    rows = gradients(2)
    torch.testing.assert_close(direction(MGDA(), rows), peer.MGDA(epsilon=1e-12)(rows))
    many = gradients(40, width=30)
    found, theirs = direction(MGDA(), many), peer.MGDA()(many)
    # The shortest vector of the hull: no gradient may have a shorter projection on it than itself.
    assert float((many @ found).min()) >= float(found @ found) * (1 - 1e-6)
    assert float((many @ theirs).min()) < 0.5 * float(theirs @ theirs)
    assert float(theirs @ theirs) > 2 * float(found @ found)


def test_cagrad_goes_on_where_one_task_has_no_gradient_and_theirs_stops() -> None:
    rows = gradients(3)
    rows[1] = 0
    found = direction(CAGrad(), rows)
    assert float((rows @ found)[[0, 2]].min()) > 0
    assert float(peer.CAGrad(0.4)(rows).norm()) == 0


def test_upgrad_never_ascends_and_theirs_does_within_its_ridge() -> None:
    rows = gradients(16, width=8, seed=3)
    rows = rows / rows.norm(dim=1, keepdim=True)
    assert float((rows @ direction(UPGrad(), rows)).min()) >= -1e-10
    assert float((rows @ peer.UPGrad()(rows)).min()) < -1e-3
    small = 1e-3 * torch.tensor([[1.0, 0.0], [-3.0, 1.0]], dtype=torch.float64)
    assert float((small @ direction(UPGrad(), small)).min()) >= -1e-15
    assert float((small @ peer.UPGrad()(small)).min()) < -1e-7  # below a trace of 1e-4 it is the plain mean
    torch.testing.assert_close(peer.UPGrad()(small), small.mean(dim=0))


def test_excess_mtl_starts_equal_and_theirs_follows_the_units_of_the_losses() -> None:
    rows = gradients(3)
    rows[0] *= 1e4
    found = direction(ExcessMTL(), rows)
    torch.testing.assert_close(found, rows.sum(dim=0))
    theirs = peer.ExcessMTLWeighting(robust_step_size=0.01)(rows)
    assert float(theirs[0]) > 0.99


STATEFUL = {
    "gradvac": (GradVac, lambda: peer.GradVacWeighting(), lambda rows: rows @ rows.T),
    "excessmtl": (ExcessMTL, lambda: peer.ExcessMTLWeighting(robust_step_size=0.3), lambda rows: rows),
}


@pytest.mark.parametrize("name", STATEFUL)
def test_our_state_resumes_and_theirs_does_not(name: str) -> None:
    kind, make, prepare = STATEFUL[name]
    ours, theirs = kind(), make()
    for step in range(3):
        direction(ours, gradients(4, seed=step))
        theirs(prepare(gradients(4, seed=step)))
    fresh = kind()
    fresh.load_state_dict(ours.state_dict())
    rows = gradients(4, seed=9)
    assert torch.equal(direction(fresh, rows), direction(ours, rows))
    restored = make()
    with pytest.raises(RuntimeError, match="Unexpected key"):
        restored.load_state_dict(theirs.state_dict())


def test_famo_resumes_and_theirs_loses_its_optimiser() -> None:
    def run(ours: FAMO, theirs: torch.nn.Module, steps: range) -> None:
        for step in steps:
            losses = LOSSES * torch.tensor([0.9, 0.99, 0.7, 1.01]).double() ** step
            weights(ours, losses)
            theirs(losses)
            after = losses * torch.tensor([0.95, 0.9, 0.8, 0.99]).double()
            ours.after_step({f"t{number}": loss for number, loss in enumerate(after)})
            theirs.update(after)

    first = FAMO(), scalar.FAMO(4).double()
    run(*first, range(4))
    second = FAMO(), scalar.FAMO(4).double()
    for fresh, old in zip(second, first, strict=True):
        fresh.load_state_dict(old.state_dict())
    run(*first, range(4, 8))
    run(*second, range(4, 8))
    losses = LOSSES * 0.5
    assert torch.equal(weights(first[0], losses), weights(second[0], losses))
    there, again = slopes(first[1], losses), slopes(second[1], losses)
    assert float(((there - again) / there).abs().max()) > 1e-3
    assert math.isfinite(float(again.sum()))
