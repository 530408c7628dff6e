"""The laws of every balancing method: those that hold for all, those that a method claims, and its golden cases.

Losses are linear in one shared vector p = 0, so that their values and gradients are exactly those that a law asks for.
"""

import copy
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from motet import RequestError
from motet.balance import Balancer, Step, Update, View, methods, wrappers
from motet.balance._claims import LAWS

# Accumulation gives no direction at most of its steps; its laws are in test_wrappers.py.
METHODS = methods() | {name: kind for name, kind in wrappers().items() if name != "accumulation"}
REWORKING = {"element-wise-clipping", "gradient-noise", "normalised-descent"}  # they change heads' gradients too
KINDS = ("random", "agreeing", "opposed", "parallel", "zero", "scales", "wide", "stationary")
Make = Callable[[], Balancer]


@dataclass
class Outcome:
    """What one step did to the shared vector and to each task's own parameter, whose own gradient is one."""

    direction: Tensor
    heads: Tensor
    step: Step
    size: float  # of the numbers whose sum is the direction: what rounding is relative to


@dataclass(repr=False)
class Case:
    """Prescribed gradients (T, P) and loss values (T,), and how to draw them again."""

    gradients: Tensor
    losses: Tensor
    names: tuple[str, ...] = ()
    origin: str = ""

    def __repr__(self) -> str:
        return self.origin

    def __post_init__(self) -> None:
        self.names = self.names or tuple(f"t.{number}" for number in range(len(self.losses)))

    def take(self, rows: Sequence[int]) -> "Case":
        """Some of the tasks, in this order."""
        index = torch.tensor(rows)
        return Case(self.gradients[index], self.losses[index], tuple(self.names[row] for row in rows))

    def scaled(self, factors: Tensor) -> "Case":
        """Each loss times its factor."""
        return Case(self.gradients * factors.unsqueeze(1), self.losses * factors, self.names)


def run(method: Balancer, case: Case, *, features: bool | None = None, dtype: torch.dtype = torch.float64) -> Outcome:
    """One step; at features where the method cannot do without them."""
    shared = torch.zeros(case.gradients.shape[1], dtype=dtype, requires_grad=True)
    heads = torch.zeros(len(case.names), dtype=dtype).unbind()
    heads = [head.clone().requires_grad_() for head in heads]
    use_features = needs_features(type(method)) if features is None else features

    def closure() -> tuple[dict[str, Tensor], Tensor] | dict[str, Tensor]:
        z = (shared * 1.0).reshape(-1, 1)
        losses = {
            name: (grad.to(dtype) * (z.flatten() if use_features else shared)).sum() + head + value.to(dtype)
            for name, grad, value, head in zip(case.names, case.gradients, case.losses, heads, strict=True)
        }
        return (losses, z) if use_features else losses

    step = method.backward(closure, shared=None if use_features else [shared])
    own = torch.stack([torch.zeros_like(head) if head.grad is None else head.grad for head in heads])
    direction = torch.zeros_like(shared) if shared.grad is None else shared.grad
    norms = case.gradients.norm(dim=1)
    weights = torch.tensor([abs(value) for value in step.weights.values()], dtype=torch.float64)
    size = float((weights * norms).sum()) + 1e-8 * float(norms.sum()) if len(weights) else float(norms.sum())
    return Outcome(direction, own, step, size)


def needs_features(kind: type[Balancer]) -> bool:
    """Whether the method works at shared features alone."""
    if kind not in _NEEDS:
        shared = torch.zeros(2, requires_grad=True)
        try:
            kind().backward(lambda: {"a": shared.sum() + 1, "b": shared[0] + 1}, shared=[shared])
            _NEEDS[kind] = False
        except RequestError as error:
            if "features=" not in str(error):
                raise
            _NEEDS[kind] = True
    return _NEEDS[kind]


_NEEDS: dict[type[Balancer], bool] = {}


def is_random(kind: type[Balancer]) -> bool:
    """Whether the method draws numbers: then it takes their seed."""
    return "seed" in inspect.signature(kind).parameters


def draw(seed: int, kind: str, num_tasks: int, width: int) -> Case:
    """Gradients of one kind."""
    generator = torch.Generator().manual_seed(seed)
    grads = torch.randn(num_tasks, width, generator=generator, dtype=torch.float64)
    logs = torch.rand(num_tasks, generator=generator, dtype=torch.float64)
    if kind == "agreeing":
        grads = grads.abs()
    elif kind == "opposed":
        grads = grads[0] * torch.where(torch.arange(num_tasks) % 2 == 0, 1.0, -1.0).double().unsqueeze(1)
    elif kind == "parallel":
        grads = grads[0] * (logs + 0.1).unsqueeze(1)
    elif kind == "zero":
        grads[num_tasks // 2] = 0
    elif kind == "scales":
        grads = grads * 10.0 ** float(24 * logs[0] - 12)
    elif kind == "wide":
        grads = grads * (10.0 ** (24 * logs - 12)).unsqueeze(1)
    elif kind == "stationary" and num_tasks > 1:
        grads[-1] = -(logs[:-1, None] * grads[:-1]).sum(dim=0)
    losses = 10.0 ** (4 * torch.rand(num_tasks, generator=generator, dtype=torch.float64) - 2)
    return Case(grads, losses, origin=f"draw({seed}, {kind!r}, {num_tasks}, {width})")


@st.composite
def cases(draw_from: st.DrawFn, min_tasks: int = 1, kinds: Sequence[str] = KINDS) -> Case:
    """Cases of every kind, from one task to sixteen and now and then sixty-four."""
    tasks = draw_from(st.one_of(*[st.integers(min_tasks, 16)] * 5, st.just(64)))
    seed, kind = draw_from(st.integers(0, 2**31)), draw_from(st.sampled_from(tuple(kinds)))
    return draw(seed, kind, tasks, draw_from(st.integers(1, 24)))


def check(holds: bool, message: str) -> None:
    """Fails with the message; a plain assert would print tensors and not say what was broken."""
    if not holds:
        pytest.fail(message)


def check_close(found: Tensor, expected: Tensor, size: float, what: str, tolerance: float = 1e-6) -> None:
    """Two directions, as near as rounding lets sums of numbers of that size be."""
    gap = float((found - expected).norm())
    check(
        gap <= tolerance * max(size, float(expected.norm())), f"{what}: a gap of {gap:.3g} with numbers of {size:.3g}"
    )


def cosine(first: Tensor, second: Tensor) -> float:
    """Of two directions of any length; zero where one is zero."""
    lengths = [float(vector.norm()) for vector in (first, second)]
    return float((first / lengths[0]) @ (second / lengths[1])) if min(lengths) > 0 else 0.0


# What holds for every method ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(case=cases())
@settings(max_examples=20, deadline=None)
def test_the_direction_is_finite_and_of_its_parameters_shape(name: str, dtype: torch.dtype, case: Case) -> None:
    found = run(METHODS[name](), case, dtype=dtype)
    assert found.direction.shape == case.gradients.shape[1:]
    assert found.direction.dtype == dtype
    assert torch.isfinite(found.direction).all()
    assert torch.isfinite(found.heads).all()
    assert set(found.step.weights) in (set(), set(case.names))


@pytest.mark.parametrize("name", METHODS)
@given(case=cases())
@settings(max_examples=10, deadline=None)
def test_the_same_step_from_the_same_start_is_the_same(name: str, case: Case) -> None:
    state = torch.get_rng_state()
    first = run(METHODS[name](), case)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert torch.equal(first.direction, run(METHODS[name](), case).direction)


@pytest.mark.parametrize("name", [name for name, kind in METHODS.items() if not is_random(kind)])
@given(case=cases(), seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_the_order_of_tasks_does_not_matter(name: str, case: Case, seed: int) -> None:
    # A method that draws numbers is left out: it deals them to the tasks in the order in which they come.
    order = torch.randperm(len(case.names), generator=torch.Generator().manual_seed(seed)).tolist()
    first, second = run(METHODS[name](), case), run(METHODS[name](), case.take(order))
    check_close(first.direction, second.direction, first.size, "another order of the tasks", 1e-5)


@pytest.mark.parametrize("name", [name for name in METHODS if name not in REWORKING])
@given(case=cases())
@settings(max_examples=10, deadline=None)
def test_heads_get_their_own_gradient_or_the_weighted_one(name: str, case: Case) -> None:
    found = run(METHODS[name](), case)
    weights = torch.tensor([found.step.weights.get(task, 1.0) for task in case.names], dtype=torch.float64)
    if name == "db-mtl":  # the loss is the logarithm, for heads too
        weights = 1 / case.losses
    own = torch.allclose(found.heads, torch.ones_like(found.heads))
    assert own or torch.allclose(found.heads, weights, rtol=1e-6)


@pytest.mark.parametrize("name", METHODS)
@given(case=cases())
@settings(max_examples=10, deadline=None)
def test_features_give_what_parameters_give(name: str, case: Case) -> None:
    if METHODS[name]().place == "parameters" and METHODS[name]().needs_network:
        with pytest.raises(RequestError, match=r"shared=trunk\.parameters"):
            run(METHODS[name](), case, features=True)
        return
    found = run(METHODS[name](), case, features=True)
    assert torch.isfinite(found.direction).all()
    if needs_features(METHODS[name]) or found.step.gramian is None:
        return
    plain = run(METHODS[name](), case, features=False)
    check_close(found.direction, plain.direction, plain.size, "at features", 1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_float32_is_near_float64(name: str) -> None:
    case = draw(3, "agreeing", 3, 20)
    narrow, wide = (run(METHODS[name](), case, dtype=dtype) for dtype in (torch.float32, torch.float64))
    check_close(narrow.direction.double(), wide.direction, wide.size, "float32", 1e-3)


def learn(method: Balancer) -> None:
    """What an optimiser does to a method's own parameters after a step."""
    with torch.no_grad():
        for parameter in method.parameters():
            if parameter.grad is not None:
                parameter -= 0.01 * parameter.grad.clamp(-1, 1)
                parameter.grad = None


def go_on(method: Balancer, seed: int) -> list[Tensor]:
    """The directions of three more steps, one of them without some of the tasks."""
    directions = []
    for number in range(3):
        case = draw(seed + number, "random", 4, 6)
        directions.append(run(method, case.take([3, 1]) if number == 1 else case).direction)
        learn(method)
    return directions


@pytest.mark.parametrize("name", METHODS)
def test_state_goes_on_in_a_fresh_instance(name: str) -> None:
    first = METHODS[name]()
    go_on(first, 10)
    saved = {key: value.clone() for key, value in first.state_dict().items()}
    assert all(isinstance(value, Tensor) for value in saved.values())
    second = METHODS[name]()
    if any(True for _ in first.parameters()):
        second.add_tasks(["t.0", "t.1", "t.2", "t.3"])  # parameters must exist before an optimiser does
    second.load_state_dict(dict(sorted(saved.items())))  # files do not keep the order
    assert all(map(torch.equal, go_on(first, 20), go_on(second, 20)))


@pytest.mark.parametrize("name", METHODS)
def test_a_deep_copy_goes_on_alike_and_apart(name: str) -> None:
    first = METHODS[name]()
    go_on(first, 10)
    second = copy.deepcopy(first)
    expected = go_on(first, 20)
    assert all(map(torch.equal, expected, go_on(second, 20)))


@pytest.mark.parametrize("name", METHODS)
def test_reset_forgets(name: str) -> None:
    method = METHODS[name]()
    expected = [run(METHODS[name](), draw(5, "random", 3, 4)).direction]
    go_on(method, 10)
    if any(True for _ in method.parameters()):
        return  # the optimiser owns what it learns
    method.reset()
    assert torch.equal(run(method, draw(5, "random", 3, 4)).direction, expected[0])


@pytest.mark.parametrize("name", METHODS)
@given(case=cases(min_tasks=3))
@settings(max_examples=10, deadline=None)
def test_a_batch_may_lack_tasks_and_bring_new_ones(name: str, case: Case) -> None:
    method = METHODS[name]()
    for rows in ([0, 1], [1], [2, 1], [0, 1, 2]):
        found = run(method, case.take(rows))
        assert torch.isfinite(found.direction).all()
        assert set(found.step.weights) in (set(), {case.names[row] for row in rows})


# What a method claims -------------------------------------------------------------------------------------------------


def scale_equivariant(make: Make, case: Case, seed: int) -> None:
    factor = 10.0 ** (seed % 13 - 6)
    plain, scaled = run(make(), case), run(make(), case.scaled(torch.full_like(case.losses, factor)))
    check_close(scaled.direction / factor, plain.direction, plain.size, f"every loss times {factor:g}", 1e-5)


def scale_invariant(make: Make, case: Case, seed: int) -> None:
    factors = torch.ones_like(case.losses)
    factors[seed % len(factors)] = 10.0 ** (seed % 7 - 3.5)
    plain, scaled = run(make(), case), run(make(), case.scaled(factors))
    check_close(scaled.direction, plain.direction, plain.size, "one loss scaled", 1e-5)


def mean_when_agreeing(make: Make, case: Case, seed: int) -> None:
    grad = case.gradients[seed % len(case.losses)]
    if grad.norm() == 0:
        return
    num_tasks = len(case.losses)
    found = run(make(), Case(grad.expand(num_tasks, -1), case.losses)).direction
    check(cosine(found, grad) > 1 - 1e-9, "equal gradients, and a direction that is not theirs")
    length = float(found.norm() / grad.norm())
    check(min(abs(length - 1), abs(length / num_tasks - 1)) < 1e-5, f"{num_tasks} equal gradients give {length} of one")


def never_ascends(make: Make, case: Case, seed: int) -> None:
    found = run(make(), case)
    along = case.gradients @ found.direction
    norms = case.gradients.norm(dim=1)
    least = -1e-6 * norms * (float(found.direction.norm()) + 1e-3 * found.size)
    check(bool((along >= least).all()), f"a task ascends: {along.tolist()}")


def stationary_is_zero(make: Make, case: Case, seed: int) -> None:
    num_tasks = len(case.losses)
    norms = case.gradients.norm(dim=1)
    if num_tasks > 1 and float(norms.min()) > 1e-3 * float(norms.max()):
        shares = torch.rand(num_tasks - 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        closing = -(shares.unsqueeze(1) * case.gradients[:-1]).sum(dim=0, keepdim=True)
        found = run(make(), Case(torch.cat([case.gradients[:-1], closing]), case.losses))
        check(float(found.direction.norm()) <= 1e-5 * float(norms.max()), "stationary, and yet it moves")
    leaning = case.gradients / norms.clamp(min=1e-300).unsqueeze(1)
    leaning = leaning[norms > 0]
    leaning[:, 0] = leaning[:, 0].abs() + 0.1
    if len(leaning):
        found = run(make(), Case(leaning, case.losses[norms > 0]))
        check(float(found.direction.norm()) > 1e-3, "every task can fall, and yet it stays")


def one_task_is_plain(make: Make, case: Case, seed: int) -> None:
    alone = case.take([seed % len(case.losses)])
    found = run(make(), alone)
    check_close(found.direction, alone.gradients[0], float(alone.gradients.norm()), "one task alone", 1e-9)


def duplicate_is_harmless(make: Make, case: Case, seed: int) -> None:
    row = seed % len(case.losses)
    twice = Case(
        torch.cat([case.gradients, case.gradients[row : row + 1]]), torch.cat([case.losses, case.losses[row : row + 1]])
    )
    once, found = run(make(), case), run(make(), twice)
    if float(once.direction.norm()) <= 1e-6 * once.size:
        check(float(found.direction.norm()) <= 1e-4 * found.size, "a duplicate moves what stood still")
        return
    rounding = (once.size / float(once.direction.norm())) * 1e-7
    check(cosine(once.direction, found.direction) > 1 - 1e-6 - rounding, "a duplicate turns the direction")


def zero_is_harmless(make: Make, case: Case, seed: int) -> None:
    row = seed % (len(case.losses) + 1)
    zero, one = torch.zeros_like(case.gradients[:1]), torch.ones_like(case.losses[:1])
    more = Case(
        torch.cat([case.gradients[:row], zero, case.gradients[row:]]),
        torch.cat([case.losses[:row], one, case.losses[row:]]),
    )
    without, found = run(make(), case), run(make(), more)
    if float(without.direction.norm()) > 1e-6 * without.size:
        check(cosine(without.direction, found.direction) > 1e-3, "a zero gradient takes the others' direction away")


PROOFS: dict[str, Callable[[Make, Case, int], None]] = {
    "scale equivariant": scale_equivariant,
    "scale invariant": scale_invariant,
    "mean when agreeing": mean_when_agreeing,
    "never ascends": never_ascends,
    "stationary is zero": stationary_is_zero,
    "one task is plain": one_task_is_plain,
    "duplicate is harmless": duplicate_is_harmless,
    "zero is harmless": zero_is_harmless,
}
CLAIMS = [(name, law) for name, kind in METHODS.items() for law in sorted(kind.claims)]
GOLDEN = [(name, number) for name, kind in METHODS.items() for number in range(len(kind.golden))]


@pytest.mark.parametrize(("name", "law"), CLAIMS)
@given(case=cases(), seed=st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_what_is_claimed_holds(name: str, law: str, case: Case, seed: int) -> None:
    PROOFS[law](METHODS[name], case, seed)


@pytest.mark.parametrize(("name", "number"), GOLDEN)
def test_golden_case(name: str, number: int) -> None:
    golden = METHODS[name].golden[number]
    grads = torch.tensor(golden.gradients, dtype=torch.float64)
    losses = torch.tensor(golden.losses, dtype=torch.float64) if golden.losses else torch.ones(len(grads)).double()
    found = run(METHODS[name](), Case(grads, losses)).direction
    expected = torch.tensor(golden.direction, dtype=torch.float64)
    assert golden.source
    assert float((found - expected).norm()) <= golden.tolerance * max(float(expected.norm()), 1e-300), found.tolist()


def test_every_law_has_a_proof_and_every_claim_is_a_law() -> None:
    assert set(PROOFS) == set(LAWS)
    assert {law for _, law in CLAIMS} <= set(LAWS)


class Fake(Balancer):
    """Keeps no law: climbs, by place, faster with larger losses, and stands still where a task has no gradient."""

    name: ClassVar[str] = "fake"

    def update(self, view: View) -> Update:
        places = torch.arange(1, len(view.names) + 1, dtype=torch.float64)
        weights = -places * (1 + view.losses.sum())
        return Update(weights * bool((view.gramian.diagonal() > 0).all()))


@pytest.mark.parametrize("law", sorted(LAWS))
def test_a_false_claim_is_found_out(law: str) -> None:
    def prove() -> None:
        for seed in range(20):
            PROOFS[law](Fake, draw(seed, "random", 3, 5), seed + 3)

    with pytest.raises(pytest.fail.Exception):
        prove()
