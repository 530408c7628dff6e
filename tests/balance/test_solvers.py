"""The exact solvers against slow independent ones, and against their own optimality conditions on hard Gramians."""

from collections.abc import Callable
from typing import Any, cast

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from scipy.optimize import brentq, minimize, nnls
from torch import Tensor

from motet.balance import Balancer
from motet.balance._alignedmtl import AlignedMTL
from motet.balance._cagrad import CAGrad, added_weights
from motet.balance._fairgrad import FairGrad
from motet.balance._go4align import Go4Align
from motet.balance._gradnorm import GradNorm
from motet.balance._gradvac import GradVac
from motet.balance._imtl import IMTL
from motet.balance._mgda import MGDA, min_norm_weights
from motet.balance._nashmtl import NashMTL, bargaining_weights
from motet.balance._ntkmtl import NTKMTLSR
from motet.balance._pcgrad import PCGrad, random_orders
from motet.balance._upgrad import cone_lengths
from motet.balance.parts._solvers import directions, nonnegative_qp

FEW = (1, 2, 3, 5, 9)
HARD = ("random", "agreeing", "opposed", "duplicate", "zero", "scales", "wide", "rank one")


def gradients(kind: str, num_tasks: int, width: int, seed: int) -> Tensor:
    """Gradients (T, P) of a kind that is hard for some solver."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(num_tasks, width, generator=generator, dtype=torch.float64)
    logs = torch.rand(num_tasks, 1, generator=generator, dtype=torch.float64)
    signs = torch.where(torch.arange(num_tasks) % 2 == 0, 1, -1).double().unsqueeze(1)
    return {
        "random": rows,
        "agreeing": rows.abs(),
        "opposed": rows[:1] * signs,
        "duplicate": rows[torch.arange(num_tasks) // 2],
        "zero": rows * (torch.arange(num_tasks) != num_tasks // 2).double().unsqueeze(1),
        "scales": rows * 10.0 ** float(24 * logs[0] - 12),
        "wide": rows * 10.0 ** (24 * logs - 12),
        "rank one": rows[:1] * (logs - 0.5),
    }[kind]


hard = st.builds(
    gradients,
    st.sampled_from(HARD),
    st.one_of(*[st.integers(1, 16)] * 5, st.just(64)),
    st.integers(1, 80),
    st.integers(0, 2**31),
)


@given(rows=hard, many=st.booleans())
@settings(max_examples=60, deadline=None)
def test_nonnegative_qp_meets_its_conditions(rows: Tensor, many: bool) -> None:
    found = directions(rows @ rows.T)
    linear = -found.cosines if many else torch.ones(1, len(rows), dtype=torch.float64)
    lengths = nonnegative_qp(found.cosines, linear)
    slack = lengths @ found.cosines - linear
    size = 1 + float(lengths.max())
    assert lengths.min() >= 0
    assert slack.min() >= -1e-9 * size
    assert (slack * lengths).abs().max() <= 1e-9 * size**2


@pytest.mark.parametrize("seed", range(20))
def test_nonnegative_qp_is_scipys_nnls(seed: int) -> None:
    rows = gradients("random", 12, 30, seed)
    target = gradients("random", 1, 30, seed + 100)[0]
    expected, _ = nnls(rows.T.numpy(), target.numpy())
    found = nonnegative_qp(rows @ rows.T, (rows @ target).unsqueeze(0))[0]
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=1e-9, atol=1e-10)


@given(rows=hard)
@settings(max_examples=60, deadline=None)
def test_min_norm_point_meets_its_conditions(rows: Tensor) -> None:
    found = directions(rows @ rows.T)
    weights = min_norm_weights(found, found.norms)
    point = weights @ rows
    assert weights.min() >= 0
    assert float(weights.sum()) == pytest.approx(1)
    # Wolfe's criterion: no gradient has a shorter projection on the point than the point itself.
    norms = rows.norm(dim=1)
    short = float((rows @ point - point @ point + 1e-9 * norms * norms.min()).min())
    assert short >= -1e-9 * float(norms.max()) * float(point.norm())


def test_min_norm_point_at_many_tasks_is_below_frank_wolfe() -> None:
    rows = gradients("agreeing", 40, 200, 0)
    gram = rows @ rows.T
    weights = torch.full((40,), 1 / 40, dtype=torch.float64)
    for _ in range(2000):
        best = int((gram @ weights).argmin())
        toward = torch.eye(40, dtype=torch.float64)[best] - weights
        size = float(-(weights @ gram @ toward) / (toward @ gram @ toward))
        weights = weights + max(0.0, min(1.0, size)) * toward
    found = min_norm_weights(directions(gram), rows.norm(dim=1))
    assert float(found @ gram @ found) <= float(weights @ gram @ weights)
    assert float(found @ gram @ found) == pytest.approx(float(weights @ gram @ weights), rel=1e-2)


@pytest.mark.parametrize("num_tasks", FEW)
@pytest.mark.parametrize("radius", [0.1, 0.4, 1.5])
def test_cagrad_is_the_minimum_that_scipy_finds(num_tasks: int, radius: float) -> None:
    rows = gradients("random", num_tasks, 12, num_tasks)
    gram, mean = rows @ rows.T, rows.mean(dim=0)
    limit = radius * float(mean.norm())

    def worth(weights: Tensor) -> float:
        point = weights @ rows
        return float(point @ mean + limit * point.norm())

    def at(values: Any) -> float:
        return worth(torch.from_numpy(values))

    starts = [torch.ones(num_tasks) / num_tasks, *(0.9 * torch.eye(num_tasks) + 0.1 / num_tasks)]
    tries = [
        minimize(
            at,
            start.double().numpy(),
            method="SLSQP",
            bounds=[(0, 1)] * num_tasks,
            constraints={"type": "eq", "fun": lambda values: values.sum() - 1},
            options={"ftol": 1e-13, "maxiter": 500},
        )
        for start in starts
    ]
    added = added_weights(directions(gram), radius)
    direction = mean + added @ rows
    assert float((added @ rows).norm()) == pytest.approx(limit, rel=1e-6)
    # Strong duality: the least gain of our direction is the minimum of the dual.
    assert float((rows @ direction).min()) == pytest.approx(min(found.fun for found in tries), rel=1e-4, abs=1e-6)
    assert float((rows @ direction).min()) == pytest.approx(worth(added / added.sum()), rel=1e-6, abs=1e-8)


@given(rows=hard, radius=st.sampled_from([0.1, 0.4, 0.9]))
@settings(max_examples=60, deadline=None)
def test_cagrad_stays_in_its_ball_and_helps_the_worst(rows: Tensor, radius: float) -> None:
    mean = rows.mean(dim=0)
    added = added_weights(directions(rows @ rows.T), radius) @ rows
    norms = rows.norm(dim=1)
    rounding = 1e-6 * float(norms.max())
    assert float(added.norm()) <= radius * float(mean.norm()) * (1 + 1e-6) + rounding
    alive = norms > 0
    if alive.any():
        gain = (rows @ (mean + added))[alive].min() - (rows @ mean)[alive].min()
        assert float(gain) >= -1e-9 * float(norms.max()) ** 2


@given(rows=hard)
@settings(max_examples=60, deadline=None)
def test_projections_are_in_the_cone_and_nearest(rows: Tensor) -> None:
    found = directions(rows @ rows.T)
    units = rows / found.norms.unsqueeze(1)
    added = cone_lengths(found, torch.eye(len(rows), dtype=torch.float64))
    projected = units + added @ units
    along = projected @ units.T
    size = 1 + float(added.max())
    assert along.min() >= -1e-9 * size
    assert (added * along).abs().max() <= 1e-9 * size**2


@given(rows=hard, alpha=st.sampled_from([0.5, 1.0, 2.0, 4.0]))
@settings(max_examples=60, deadline=None)
def test_bargaining_weights_solve_their_equation(rows: Tensor, alpha: float) -> None:
    found = directions(rows @ rows.T)
    weights = bargaining_weights(found, alpha)
    assert torch.isfinite(weights).all()
    assert (weights > 0).all()
    if float(torch.linalg.eigvalsh(found.cosines)[0]) < 1e-3 or not found.alive.all():
        return
    lengths = weights * found.norms
    expected = weights ** (-1 / alpha) / found.norms
    torch.testing.assert_close(found.cosines @ lengths, expected, rtol=1e-5, atol=1e-8 * float(lengths.max()))


def test_bargaining_of_two_tasks_is_the_root_of_one_equation() -> None:
    gram = torch.tensor([[2.0, -1.0], [-1.0, 5.0]], dtype=torch.float64)

    def rest(first: float) -> float:
        second = (2 * first - 1 / first) / 1.0  # from the first row
        return -first + 5 * second - 1 / second

    first = cast("float", brentq(rest, 0.5**0.5 + 1e-9, 10))
    expected = torch.tensor([first, 2 * first - 1 / first], dtype=torch.float64)
    torch.testing.assert_close(bargaining_weights(directions(gram), 1.0), expected, rtol=1e-9, atol=0)


def losses_of(rows: Tensor, values: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """A shared vector, and losses of these gradients and values."""
    shared = torch.zeros(rows.shape[1], dtype=torch.float64, requires_grad=True)
    pairs = zip(rows, values, strict=True)
    return shared, {f"t{number}": row @ shared + value for number, (row, value) in enumerate(pairs)}


def direction(method: Balancer, rows: Tensor, values: Tensor | None = None) -> Tensor:
    """What the method does with gradients as rows."""
    shared, losses = losses_of(rows, torch.ones(len(rows)).double() if values is None else values)
    method.backward(losses, shared=[shared])
    return cast("Tensor", shared.grad)


def test_fairness_of_one_is_the_bargain() -> None:
    rows = gradients("random", 5, 9, 0)
    fair, nash = direction(FairGrad(alpha=1.0), rows), direction(NashMTL(), rows)
    torch.testing.assert_close(fair, nash)
    assert float(nash.norm()) == pytest.approx(1)
    assert float(direction(NashMTL(max_norm=None), rows).norm()) == pytest.approx(5**0.5)


def test_a_radius_of_zero_is_the_mean() -> None:
    rows = gradients("random", 5, 9, 0)
    torch.testing.assert_close(direction(CAGrad(c=0), rows), rows.mean(dim=0))


def test_mgda_normalised_treats_lengths_alike() -> None:
    rows = gradients("random", 4, 9, 1)
    values = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    units = rows / rows.norm(dim=1, keepdim=True)
    torch.testing.assert_close(direction(MGDA(normalisation="l2"), rows), direction(MGDA(), units))
    scaled = units / values.unsqueeze(1)
    torch.testing.assert_close(direction(MGDA(normalisation="loss+"), rows, values), direction(MGDA(), scaled))


def test_pcgrad_on_the_gramian_is_pcgrad_on_the_gradients() -> None:
    rows = gradients("random", 6, 4, 2)
    orders = random_orders(6, 0, 0)
    total = torch.zeros(4, dtype=torch.float64)
    for task, order in enumerate(orders.tolist()):
        part = rows[task].clone()
        for other in order:
            if other != task and part @ rows[other] < 0:
                part -= (part @ rows[other]) / (rows[other] @ rows[other]) * rows[other]
        total += part
    torch.testing.assert_close(direction(PCGrad(), rows), total)


def test_gradvac_reaches_the_cosine_that_it_aims_at() -> None:
    rows = torch.tensor([[1.0, 0.0], [-0.6, 0.8]], dtype=torch.float64)
    method = GradVac(beta=0.5)
    method.targets.write(["t0", "t1"], torch.tensor([[0.0, 0.5], [-0.99, 0.0]]))
    found = direction(method, rows) - rows[1]  # the second task is above its target
    assert float(found @ rows[1] / found.norm()) == pytest.approx(0.5)
    assert method.targets.read(["t0", "t1"])[0, 1] == pytest.approx(0.5 * 0.5 - 0.5 * 0.6)


@pytest.mark.parametrize(("scale", "expected"), [("min", 1.0), ("median", 2.0), ("rmse", (21 / 3) ** 0.5)])
def test_aligned_components_have_one_length(scale: Any, expected: float) -> None:
    rows = torch.diag(torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64))
    torch.testing.assert_close(direction(AlignedMTL(scale=scale), rows), torch.full((3,), expected).double())


def test_imtl_learns_the_scale_that_theory_gives() -> None:
    # The minimum over s of e^s L − s is e^s = 1 / L.
    method = IMTL(("t0", "t1"))
    optimizer = torch.optim.SGD(method.parameters(), lr=0.3)
    for _ in range(300):
        optimizer.zero_grad()
        direction(method, torch.eye(2).double(), torch.tensor([4.0, 0.25]).double())
        optimizer.step()
    scales = [float(parameter.detach().exp()) for parameter in method.parameters()]
    assert scales == pytest.approx([0.25, 4.0], rel=1e-3)


def test_gradnorm_evens_out_lengths() -> None:
    method = GradNorm(rate=0.01)
    for _ in range(400):
        direction(method, torch.tensor([[1.0, 0.0], [0.0, 3.0]]).double())
    found = direction(method, torch.tensor([[1.0, 0.0], [0.0, 3.0]]).double())
    torch.testing.assert_close(found, torch.full((2,), 1.5).double(), rtol=0.05, atol=0)


def test_go4align_favours_low_risk_and_groups_exactly() -> None:
    values = torch.tensor([1.0, 1.1, 5.0, 5.2]).double()
    found = direction(Go4Align(rate=0.0), torch.eye(4).double(), values)
    plain = values.sum() / values / 4
    expected = torch.stack([plain[:2].mean(), plain[:2].mean(), plain[2:].mean(), plain[2:].mean()])
    torch.testing.assert_close(found, expected)
    method = Go4Align(num_groups=4, rate=0.1)
    for _ in range(5):
        found = direction(method, torch.eye(4).double(), values)
    assert found[0] / found[3] > plain[0] / plain[3]


def test_ntkmtl_sr_asks_for_features() -> None:
    shared, losses = losses_of(torch.eye(2).double(), torch.ones(2).double())
    with pytest.raises(ValueError, match="features=z, or use NTKMTL"):
        NTKMTLSR().backward(losses, shared=[shared])


@pytest.mark.parametrize(
    ("build", "advice"),
    [
        (lambda: CAGrad(c=-1), "c=0"),
        (lambda: FairGrad(alpha=0), "EqualWeighting"),
        (lambda: MGDA(normalisation=cast("Any", "l1")), "'loss\\+'"),
        (lambda: AlignedMTL(scale=cast("Any", "max")), "'rmse'"),
        (lambda: Go4Align(num_groups=0), "at least 1"),
        (lambda: NTKMTLSR(num_parts=0), "4"),
    ],
)
def test_bad_arguments_are_refused_with_advice(build: Callable[[], Balancer], advice: str) -> None:
    with pytest.raises(ValueError, match=advice):
        build()
