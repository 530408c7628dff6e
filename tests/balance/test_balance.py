"""The laws of the first balancing methods, and the comparison of gradients."""

import copy
import subprocess
import sys
from pathlib import Path

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from motet import RequestError, balance
from motet.balance import (
    EqualWeighting,
    RandomLossWeighting,
    UncertaintyWeighting,
    cosines,
    from_name,
    gradient_gramian,
    methods,
)

NAMES = ["equal", "random", "uncertainty"]  # the laws of all methods are in test_laws.py
values = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=8)


def quadratic(coefficients: list[float]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """A parameter, and losses whose gradients are the coefficients."""
    parameter = torch.tensor(1.0, requires_grad=True)
    return parameter, {f"t.{i}": coefficient * parameter for i, coefficient in enumerate(coefficients)}


@pytest.mark.parametrize("name", NAMES)
@given(coefficients=values)
@settings(max_examples=25, deadline=None)
def test_gradient_is_the_weighted_sum(name: str, coefficients: list[float]) -> None:
    parameter, losses = quadratic(coefficients)
    step = from_name(name).backward(losses)
    expected = sum(step.weights[f"t.{i}"] * coefficient for i, coefficient in enumerate(coefficients))
    assert list(step.weights) == list(losses)
    assert parameter.grad.item() == pytest.approx(expected, rel=1e-4, abs=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_one_task_alone_follows_its_own_gradient(name: str) -> None:
    parameter, losses = quadratic([3.0])
    from_name(name).backward(losses)
    assert parameter.grad.item() > 0


@pytest.mark.parametrize("name", NAMES)
def test_state_round_trip_goes_on_the_same(name: str) -> None:
    first = from_name(name)
    first.add_tasks(["t.0", "t.1"])
    first.backward(quadratic([1.0, 2.0])[1])
    with torch.no_grad():
        for parameter in first.parameters():
            parameter += 0.3
    second = from_name(name)
    second.add_tasks(["t.0", "t.1"])
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert first.backward(quadratic([1.0, 2.0])[1]).weights == second.backward(quadratic([1.0, 2.0])[1]).weights


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_may_lack_a_task_and_bring_a_new_one(name: str) -> None:
    method = from_name(name)
    method.backward(quadratic([1.0, 2.0])[1])
    parameter = torch.tensor(1.0, requires_grad=True)
    step = method.backward({"new": 2 * parameter})
    assert set(step.weights) == {"new"}
    assert torch.isfinite(parameter.grad)


@pytest.mark.parametrize("name", sorted(methods()))
def test_bad_losses_are_refused_with_the_task_named(name: str) -> None:
    method = from_name(name)
    parameter = torch.tensor(1.0, requires_grad=True)
    with pytest.raises(RequestError, match=r"Task 'a' has a loss of nan.*skip_bad=True"):
        method.backward({"a": parameter * float("nan"), "b": parameter})
    with pytest.raises(RequestError, match=r"Task 'a' has a loss of shape \(2,\).*mean over rows"):
        method.backward({"a": parameter * torch.ones(2)})
    with pytest.raises(RequestError, match=r"Task 'a' has a loss that depends on no parameter"):
        method.backward({"a": torch.tensor(1.0)})
    with pytest.raises(RequestError, match=r"No loss was given"):
        method.backward({})
    assert parameter.grad is None


def test_skip_bad_leaves_the_task_out_and_says_so() -> None:
    parameter = torch.tensor(1.0, requires_grad=True)
    step = EqualWeighting(skip_bad=True).backward({"a": parameter * float("inf"), "b": 2 * parameter})
    assert step.skipped == ("a",)
    assert parameter.grad.item() == 2.0


def test_random_weights_sum_to_the_number_of_tasks_and_follow_the_seed() -> None:
    draws = [RandomLossWeighting(seed=seed).backward(quadratic([1.0, 1.0, 1.0])[1]).weights for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    assert sum(draws[0].values()) == pytest.approx(3.0, abs=1e-5)
    method = RandomLossWeighting()
    assert method.backward(quadratic([1.0, 1.0])[1]).weights != method.backward(quadratic([1.0, 1.0])[1]).weights


def test_uncertainty_weighting_settles_where_theory_says() -> None:
    # The minimum over s of ½(e^(−s) L + s) is s = log L, so the weight ½e^(−s) becomes 1 / (2 L).
    method = UncertaintyWeighting(("a", "b"))
    optimizer = torch.optim.SGD(method.parameters(), lr=0.5)
    constants = {"a": 4.0, "b": 0.25}
    for _ in range(500):
        parameter = torch.tensor(1.0, requires_grad=True)
        optimizer.zero_grad()
        step = method.backward({name: value + 0.0 * parameter for name, value in constants.items()})
        optimizer.step()
    assert step.weights == pytest.approx({"a": 1 / 8, "b": 2.0}, rel=1e-3)


def test_gramian_and_cosines_by_hand() -> None:
    shared = torch.tensor([1.0, 1.0], requires_grad=True)
    other = torch.tensor(1.0, requires_grad=True)
    losses = {"a": 3 * shared[0], "b": 4 * shared[1] - 4 * shared[0], "zero": 0 * shared[0], "apart": other * 2}
    gramian = gradient_gramian(losses, [shared])
    expected = torch.tensor([[9.0, -12, 0, 0], [-12, 32, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(gramian, expected)
    assert cosines(gramian)[0, 1].item() == pytest.approx(-(0.5**0.5))
    assert cosines(gramian)[2].abs().sum() == 0
    assert shared.grad is None


def test_unknown_method_gets_the_nearest_name() -> None:
    with pytest.raises(RequestError, match=r"no balancing method 'uncertanty'. Did you mean 'uncertainty'"):
        from_name("uncertanty")


def test_the_room_needs_torch_alone() -> None:
    others = "('polars', 'lightgbm', 'pandas', 'matplotlib', 'rich')"
    code = f"import sys, motet.balance; print([m for m in {others} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_every_method_is_exported_and_has_its_page() -> None:
    docs = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
    for name, kind in methods().items():
        assert getattr(balance, kind.__name__) is kind, name
        assert f"::: motet.balance.{kind.__name__}\n" in docs, name
