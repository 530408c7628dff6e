"""Methods that look at losses alone, against their formulas by autograd and by hand."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from motet import RequestError
from motet.balance._alternating import Alternating
from motet.balance._balancer import Balancer, Step
from motet.balance._dwa import DWA
from motet.balance._famo import FAMO
from motet.balance._gls import GLS
from motet.balance._imtll import IMTLL
from motet.balance._scale_invariant import ScaleInvariant
from motet.balance._stch import STCH


def step(method: Balancer, **values: float) -> Step:
    """One step on losses of these values."""
    parameter = torch.zeros((), dtype=torch.float64, requires_grad=True)
    return method.backward({name: value + parameter for name, value in values.items()})


def gradient(total: Callable[[Tensor], Tensor], *values: float) -> list[float]:
    """dTotal/dL by autograd."""
    losses = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    return torch.autograd.grad(total(losses), losses)[0].tolist()


VALUES = (4.0, 0.03, 250.0)


def test_sum_of_logarithms_is_what_autograd_says() -> None:
    found = step(ScaleInvariant(), a=VALUES[0], b=VALUES[1], c=VALUES[2]).weights
    assert list(found.values()) == pytest.approx(gradient(lambda losses: losses.log().sum(), *VALUES))


def test_geometric_mean_is_what_autograd_says() -> None:
    found = step(GLS(), a=VALUES[0], b=VALUES[1], c=VALUES[2]).weights
    assert list(found.values()) == pytest.approx(gradient(lambda losses: losses.prod() ** (1 / 3), *VALUES))


def test_geometric_mean_of_many_tiny_losses_does_not_underflow() -> None:
    found = step(GLS(), **{f"t{number}": 1e-9 for number in range(64)}).weights
    assert list(found.values()) == pytest.approx([1 / 64] * 64)


@pytest.mark.parametrize("kind", [ScaleInvariant, GLS, STCH, FAMO])
def test_a_loss_of_zero_is_finite_and_a_negative_one_is_refused(kind: type[Balancer]) -> None:
    assert all(math.isfinite(weight) for weight in step(kind(), a=0.0, b=1.0).weights.values())
    with pytest.raises(RequestError, match=rf"'b' has a loss of -0.5; {kind.__name__} takes logarithms.*constant"):
        step(kind(), a=1.0, b=-0.5)


def test_dwa_after_two_epochs_by_hand() -> None:
    method = DWA(window=None)
    for losses in ({"a": 4.0, "b": 1.0}, {"a": 2.0, "b": 1.0}):  # epoch 1: means 3 and 1
        assert step(method, **losses).weights == {"a": 1.0, "b": 1.0}
    method.end_epoch()
    assert step(method, a=1.5, b=0.9).weights == {"a": 1.0, "b": 1.0}  # epoch 2: means 1.5 and 0.9
    method.end_epoch()
    slow, fast = math.exp(0.9 / 2), math.exp(0.5 / 2)
    expected = {"a": 2 * fast / (slow + fast), "b": 2 * slow / (slow + fast)}
    assert step(method, a=100.0, b=100.0).weights == pytest.approx(expected)
    # A new task counts as one that stands still (r = 1); one that is missing keeps its past.
    late, total = math.exp(0.5), slow + math.exp(0.5)
    assert step(method, b=1.0, new=1.0).weights == pytest.approx({"b": 2 * slow / total, "new": 2 * late / total})


def test_dwa_ends_epochs_by_itself() -> None:
    by_hand, alone = DWA(window=None), DWA(window=2)
    for number in range(8):
        if number and number % 2 == 0:
            by_hand.end_epoch()
        values = {"a": 5.0 - 0.5 * number, "b": 2.0 - 0.1 * number}
        assert step(by_hand, **values).weights == step(alone, **values).weights
    assert step(alone, a=1.0, b=1.0).weights["b"] > 1


def test_imtl_l_gradients_are_what_autograd_says_and_settle_at_one_over_the_loss() -> None:
    method = IMTLL(("a.x", "b"))
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    with torch.no_grad():
        method.log_scales["task:b"].fill_(0.7)
    parameter = torch.zeros((), requires_grad=True)
    assert method.backward({"a.x": 4 + parameter, "b": 0.5 + parameter}).weights["b"] == pytest.approx(math.exp(0.7))
    found = [scale.grad.item() for scale in method.log_scales.values()]
    scales = torch.tensor([0.0, 0.7], requires_grad=True)
    total = (scales.exp() * torch.tensor([4.0, 0.5]) - scales).sum()
    assert found == pytest.approx(torch.autograd.grad(total, scales)[0].tolist())
    for _ in range(400):
        optimizer.zero_grad()
        parameter = torch.zeros((), requires_grad=True)
        last = method.backward({"a.x": 4 + parameter, "b": 0.5 + parameter})
        optimizer.step()
    assert last.weights == pytest.approx({"a.x": 0.25, "b": 2.0}, rel=1e-3)


def test_imtl_l_loads_into_a_fresh_instance() -> None:
    first, second = IMTLL(("a.x", "keys")), IMTLL()
    with torch.no_grad():
        first.log_scales["task:keys"].fill_(0.7)
    second.load_state_dict(first.state_dict())
    assert step(second, keys=1.0).weights["keys"] == pytest.approx(math.exp(0.7))
    second.reset()
    assert step(second, keys=1.0).weights["keys"] == 1.0


@pytest.mark.parametrize("mu", [1.0, 0.3])
def test_stch_is_what_autograd_says_after_its_warm_up(mu: float) -> None:
    method = STCH(mu=mu, warm_up=3, nadir_steps=2)
    for a, b in ((9.0, 9.0), (2.0, 0.5), (4.0, 1.5)):
        assert step(method, a=a, b=b).weights == pytest.approx({"a": 1 / a, "b": 1 / b})
    nadir = torch.tensor([3.0, 1.0], dtype=torch.float64)  # of the last two steps

    def total(losses: Tensor) -> Tensor:
        return 2 * mu * torch.logsumexp((losses / nadir).log() / mu, dim=0)

    for values in ((1.0, 0.9), (2.5, 0.1)):
        found = step(method, a=values[0], b=values[1]).weights
        assert list(found.values()) == pytest.approx(gradient(total, *values))


def test_stch_gives_a_late_task_a_nadir_of_its_own() -> None:
    method = STCH(warm_up=2, nadir_steps=2)
    for _ in range(3):
        step(method, a=1.0, b=2.0)
    for _ in range(2):
        assert step(method, a=0.5, late=8.0).weights == pytest.approx({"a": 2.0, "late": 1 / 8})
    found = step(method, a=0.5, late=4.0).weights  # both are at half of their nadir
    assert found == pytest.approx({"a": 2 * 0.5 / 0.5, "late": 2 * 0.5 / 4})


class ReferenceFAMO:
    """The released code's algorithm with torch's own Adam and softmax."""

    def __init__(self, num_tasks: int) -> None:
        self.logits = torch.zeros(num_tasks, dtype=torch.float64, requires_grad=True)
        self.optimizer = torch.optim.Adam([self.logits], lr=0.025, weight_decay=1e-3)

    def weights(self, losses: Tensor) -> Tensor:
        rates = torch.softmax(self.logits.detach(), 0) / losses
        return rates / rates.sum()

    def learn(self, before: Tensor, after: Tensor) -> None:
        shares = torch.softmax(self.logits, 0)
        self.logits.grad = torch.autograd.grad(shares, self.logits, before.log() - after.log())[0]
        self.optimizer.step()


@pytest.mark.parametrize("call_after", [True, False])
def test_famo_follows_the_released_algorithm(call_after: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    method, reference = FAMO(), ReferenceFAMO(3)
    pending = None
    for _ in range(30):
        losses = torch.rand(3, generator=generator, dtype=torch.float64) * 10 ** torch.tensor([0.0, 2.0, -2.0])
        if pending is not None:
            reference.learn(pending, losses)
        found = step(method, **dict(zip("abc", losses.tolist(), strict=True))).weights
        assert list(found.values()) == pytest.approx(reference.weights(losses).tolist(), rel=1e-9)
        after = losses * torch.tensor([0.9, 0.99, 1.01])
        if call_after:
            method.after_step(dict(zip("abc", after, strict=True)))
            reference.learn(losses, after)
        else:
            pending = losses


def test_famo_raises_the_slow_task() -> None:
    method = FAMO()
    for number in range(50):
        step(method, slow=2 * 0.999**number, fast=2 * 0.9**number)
    shares = torch.softmax(method.logits.rows(["slow", "fast"], torch.tensor(0.0)), 0)
    assert shares[0] > 0.7


def test_famo_learns_nothing_about_a_task_that_is_missing() -> None:
    method = FAMO()
    step(method, a=1.0, b=1.0)
    step(method, b=0.5)
    assert "a" not in method.logits
    method.after_step({"b": torch.tensor(float("nan"))})
    step(method, a=1.0, b=1.0)
    assert method.counts.rows(["b"], torch.tensor(0.0)).item() == 1  # from the second step alone


def chosen(method: Alternating, *names: str) -> set[str]:
    weights = step(method, **dict.fromkeys(names, 1.0)).weights
    assert set(weights.values()) <= {0.0, 1.0}
    return {name for name, weight in weights.items() if weight}


def test_turns_go_round_and_a_missing_task_is_first_when_it_comes() -> None:
    method = Alternating()
    assert [chosen(method, "b", "a", "c") for _ in range(4)] == [{"a"}, {"b"}, {"c"}, {"a"}]
    assert [chosen(method, "a", "c") for _ in range(2)] == [{"c"}, {"a"}]
    assert chosen(method, "a", "b", "c") == {"b"}


def test_groups_train_together_and_asking_does_not_use_up_the_turn() -> None:
    method = Alternating({"video": ["v1", "v2"], "image": ["i"]})
    names = ("v1", "i", "v2", "own")
    assert method.choose(names) == method.choose(names) == ("i",)
    assert [chosen(method, *names) for _ in range(3)] == [{"i"}, {"own"}, {"v1", "v2"}]
    assert method.choose([]) == ()


def test_drawn_turns_follow_their_probabilities_and_the_seed() -> None:
    method = Alternating(probabilities={"a": 3.0, "never": 0.0}, seed=5)
    draws = [chosen(method, "a", "b", "never").pop() for _ in range(400)]
    assert 0.68 < draws.count("a") / 400 < 0.82
    assert "never" not in draws
    assert chosen(method, "never") == {"never"}
    again = Alternating(probabilities={"a": 3.0, "never": 0.0}, seed=5)
    assert draws == [chosen(again, "a", "b", "never").pop() for _ in range(400)]


def test_bad_groups_and_probabilities_are_refused() -> None:
    with pytest.raises(RequestError, match="'x' is in two groups, 'one' and 'two'"):
        Alternating({"one": ["x"], "two": ["x"]})
    with pytest.raises(RequestError, match="'x' has a probability of -1"):
        Alternating(probabilities={"x": -1.0})


STATEFUL = [
    lambda: DWA(window=2),
    FAMO,
    lambda: STCH(warm_up=3, nadir_steps=2),
    Alternating,
    lambda: Alternating(probabilities={"a.x": 2.0}),
]


@pytest.mark.parametrize("make", STATEFUL)
def test_a_resumed_run_goes_on_exactly(make: Callable[[], Balancer]) -> None:
    first = make()
    losses = [{"a.x": 3 / (number + 1), "b": 2.0 - 0.1 * number, "c": 1.0} for number in range(12)]
    del losses[3]["b"]
    for values in losses[:7]:
        step(first, **values)
    second = make()
    second.load_state_dict({key: value.clone() for key, value in first.state_dict().items()})
    for values in losses[7:]:
        assert step(first, **values).weights == step(second, **values).weights
    first.reset()
    assert [step(first, **values).weights for values in losses] == [
        step(fresh, **values).weights for fresh in [make()] for values in losses
    ]
