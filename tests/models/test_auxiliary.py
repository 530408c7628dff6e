"""The named regularisers of a route: by hand, with a gradient that is not zero, and on their way into training."""

import copy
import math

import pytest
import torch
from torch import Tensor

from motet.models import MultiTaskModel
from motet.models.blocks import AUXILIARY, DSelectRoute, Experts, Gate, Mix, Routed, SoftmaxRoute, TopKRoute
from motet.models.sharing import MMoE, TaskGated
from motet.tasks import Regression

WIDTH = 6


def routed(weights: list[list[float]]) -> Routed:
    """One output, a row of weights for each row."""
    values = torch.tensor(weights, dtype=torch.float64).unsqueeze(0)
    chosen, index = values.topk(1, dim=-1)
    return Routed(values, values, values.log(), index, chosen, load=values, selectors=values.unsqueeze(-2))


EVEN = routed([[0.5, 0.5], [0.5, 0.5]])
ONE_SIDED = routed([[0.9, 0.1], [0.9, 0.1]])


@pytest.mark.parametrize(
    ("name", "even", "one_sided"),
    [
        ("importance", 0.0, 0.64),  # totals 1.8 and 0.2: mean 1, variance 0.8²
        ("load", 0.0, 0.64),
        ("switch", 1.0, 1.8),  # all choices fall on the first: 2 · (1 · 0.9)
        ("z", 0.0, 0.0),  # scores whose exponentials sum to one
        ("entropy", math.log(2), -0.9 * math.log(0.9) - 0.1 * math.log(0.1)),
        ("mutual_information", 0.0, 0.0),  # one task tells nothing
        ("selector_entropy", math.log(2), -0.9 * math.log(0.9) - 0.1 * math.log(0.1)),
        ("reachable", 1.0, 1.0),
    ],
)
def test_by_hand(name: str, even: float, one_sided: float) -> None:
    assert float(AUXILIARY[name](EVEN)) == pytest.approx(even, abs=1e-5)
    assert float(AUXILIARY[name](ONE_SIDED)) == pytest.approx(one_sided, abs=1e-5)


def test_tasks_with_experts_of_their_own_tell_all() -> None:
    shares = torch.eye(2, dtype=torch.float64).unsqueeze(1).expand(2, 5, 2)
    assert float(AUXILIARY["mutual_information"](Routed(shares, shares))) == pytest.approx(-math.log(2), abs=1e-6)


def test_mass_on_experts_that_do_not_exist_costs() -> None:
    selectors = torch.tensor([[[[0.25, 0.25]]]])
    assert float(AUXILIARY["reachable"](Routed(selectors[:, :, 0], selectors[:, :, 0], selectors=selectors))) == 2.0


def gradient(name: str, scale: float = 1.0) -> tuple[Mix, Tensor]:
    torch.manual_seed(0)
    if name in {"selector_entropy", "reachable"}:
        route = DSelectRoute(2, 5, WIDTH, k=2)
    elif name in {"load", "switch"}:
        route = TopKRoute(Gate(2, 5, WIDTH), 2, noise=2.0)
    else:
        route = SoftmaxRoute(Gate(2, 5, WIDTH))
    mix = Mix(Experts(5, WIDTH, (4,)), route, auxiliary={name: scale}).double()
    return mix, torch.randn(9, WIDTH, dtype=torch.float64)


@pytest.mark.parametrize("name", AUXILIARY)
def test_every_one_has_a_gradient_and_it_is_right(name: str) -> None:
    mix, rows = gradient(name, scale=3.0)
    parameter = next(mix.route.parameters())

    def loss(values: Tensor) -> Tensor:
        torch.manual_seed(1)  # the same noise each time
        torch.func.functional_call(mix, {"route.gate.layers.0.weight": values}, (rows,))
        return mix.auxiliary[name]

    assert parameter is mix.route.gate.layers[0].weight
    start = parameter.detach().clone().requires_grad_()
    grad = torch.autograd.grad(loss(start), start)[0]
    assert grad.abs().max() > 1e-6
    assert torch.autograd.gradcheck(loss, (start,), eps=1e-7, atol=1e-4, rtol=1e-3)


def test_a_balance_loss_balances() -> None:
    mix, rows = gradient("importance")
    with torch.no_grad():
        mix.route.gate.layers[0].weight[:, :, 0] += 1.0
    optimizer = torch.optim.Adam(mix.route.parameters(), lr=0.05)
    found = []
    for _ in range(60):
        mix(rows)
        found.append(float(mix.auxiliary["importance"].detach()))
        optimizer.zero_grad()
        mix.auxiliary["importance"].backward()
        optimizer.step()
    assert found[-1] < 0.1 * found[0]


def model(**options: object) -> MultiTaskModel:
    torch.manual_seed(0)
    tasks = [Regression(name, center=0.0, scale=1.0) for name in "ab"]
    return MultiTaskModel(torch.nn.Linear(3, WIDTH), MMoE(2, width=WIDTH, dims=(4,), **options), tasks)


def batch() -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    targets = {name: torch.randn(8) for name in "ab"}
    return torch.randn(8, 3), targets, {name: torch.ones(8, dtype=torch.bool) for name in "ab"}


def test_auxiliary_losses_reach_the_losses_once_and_only_in_training() -> None:
    plain, regular = model(), model(auxiliary={"entropy": 0.5, "importance": 0.1})
    inputs, targets, present = batch()
    without = plain.losses(plain(inputs), targets, present)
    with_ = regular.losses(regular(inputs), targets, present)
    extra = sum(regular.sharing.auxiliary.values())
    assert float(extra.detach()) > 0.1
    torch.testing.assert_close(sum(with_.values()), sum(without.values()) + extra)
    one = {"a": present["a"], "b": torch.zeros(8, dtype=torch.bool)}
    alone = regular.losses(regular(inputs), targets, one)
    torch.testing.assert_close(alone["a"], without["a"] + extra)
    regular.eval()
    quiet = regular.losses(regular(inputs), targets, present)
    assert regular.sharing.auxiliary == {}
    torch.testing.assert_close(sum(quiet.values()), sum(without.values()))


def test_the_losses_of_a_pass_do_not_outlive_it() -> None:
    net = TaskGated(2, width=8, num_experts=4, k=1, num_blocks=2)
    net(torch.randn(5, 8))
    assert set(net.auxiliary) == {"importance"}
    copied = copy.deepcopy(net)  # a graph cannot be copied
    assert copied.auxiliary == {}
    first = net.auxiliary["importance"]
    net(torch.randn(5, 8))
    assert net.auxiliary["importance"] is not first
    net.eval()(torch.randn(5, 8))
    assert net.auxiliary == {}
