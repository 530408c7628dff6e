"""Methods with coordinates and state by task, against plain loops over the papers' equations."""

import math
from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from motet import RequestError
from motet.balance import View
from motet.balance._balancer import Balancer, Step
from motet.balance._dbmtl import DBMTL
from motet.balance._excessmtl import ExcessMTL
from motet.balance._gcond import GCond, smooth_angle
from motet.balance._graddrop import GradDrop
from motet.balance._moco import MoCo
from motet.balance._modo import MoDo
from motet.balance._momentum_config import MomentumConFIG, conflict_free
from motet.balance._samgs import SAMGS
from motet.balance._sdmgrad import SDMGrad, descend
from motet.balance.parts._simplex import project_on_simplex

Run = tuple[list[np.ndarray], list[np.ndarray]]


def drawn(seed: int, num_steps: int = 12, num_tasks: int = 3, width: int = 6) -> Run:
    """Gradients (T, P) and losses (T,) of some steps, the tasks' scales apart."""
    generator = np.random.default_rng(seed)
    scales = 10.0 ** np.arange(num_tasks).reshape(-1, 1)
    gradients = [scales * generator.normal(size=(num_tasks, width)) for _ in range(num_steps)]
    return gradients, [generator.uniform(0.1, 3.0, num_tasks) for _ in range(num_steps)]


def step(method: Balancer, grads: np.ndarray, losses: np.ndarray, names: str = "abcdefgh") -> tuple[np.ndarray, Step]:
    """One step on prescribed gradients and losses: the direction, and what was done."""
    shared = torch.zeros(grads.shape[1], dtype=torch.float64, requires_grad=True)
    values = {
        name: (torch.as_tensor(grad) * shared).sum() + loss
        for name, grad, loss in zip(names, grads, losses, strict=False)
    }
    done = method.backward(values, shared=[shared])
    return shared.grad.numpy(), done


def check_run(method: Balancer, expected: list[np.ndarray], run: Run) -> None:
    found = [step(method, grads, losses)[0] for grads, losses in zip(*run, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


# References: float64, one task and one step after the other ----------------------------------------------------------


def nearest_on_simplex(point: np.ndarray) -> np.ndarray:
    """By bisection on the level: another way than the sort that is tested."""
    low, high = point.min() - 1.0, point.max()
    for _ in range(200):
        level = 0.5 * (low + high)
        low, high = (level, high) if np.maximum(point - level, 0).sum() > 1 else (low, level)
    return np.maximum(point - high, 0)


def moco(run: Run) -> list[np.ndarray]:
    num_tasks = len(run[1][0])
    running, weights, found = np.zeros_like(run[0][0]), np.full(num_tasks, 1 / num_tasks), []
    for number, (grads, losses) in enumerate(zip(*run, strict=True), start=1):
        for task in range(num_tasks):
            target = losses[task] * grads[task] / np.linalg.norm(grads[task])
            running[task] -= 0.5 / number**0.5 * (running[task] - target)
        weights = nearest_on_simplex(weights - 0.1 / number**0.5 * running @ running.T @ weights)
        found.append(sum(weights[task] * running[task] for task in range(num_tasks)))
    return found


def dbmtl(run: Run, beta: float, sigma: float) -> list[np.ndarray]:
    running, found = np.zeros_like(run[0][0]), []
    for number, (grads, losses) in enumerate(zip(*run, strict=True), start=1):
        for task, loss in enumerate(losses):
            log_grad = grads[task] / loss
            running[task] = log_grad + beta / number**sigma * (running[task] - log_grad)
        longest = max(np.linalg.norm(row) for row in running)
        found.append(sum(longest / np.linalg.norm(row) * row for row in running))
    return found


def excessmtl(run: Run) -> list[np.ndarray]:
    num_tasks = len(run[1][0])
    squares, weights, first, found = np.zeros_like(run[0][0]), np.ones(num_tasks), None, []
    for grads in run[0]:
        squares += grads**2
        excess = np.array([(grads[k] ** 2 / np.sqrt(squares[k] + 1e-7)).sum() for k in range(num_tasks)])
        first = excess if first is None else first
        weights = weights * np.exp(0.01 * excess / first)
        weights = num_tasks * weights / weights.sum()
        found.append(weights @ grads)
    return found


def samgs(run: Run, gamma: float) -> list[np.ndarray]:
    num_tasks = len(run[1][0])
    running, spread, found = np.zeros_like(run[0][0]), 0.0, []
    for number, grads in enumerate(run[0], start=1):
        lengths = [np.linalg.norm(grad) for grad in grads]
        similarity = np.mean([2 * a * b / (a**2 + b**2) for a, b in combinations(lengths, 2)])
        running = 0.9 * running + 0.1 * grads
        spread = 0.99 * spread + 0.01 * (1 - similarity) ** 2 + 1e-8
        scale = math.sqrt(spread / (1 - 0.99**number))
        if similarity < gamma:
            terms = [np.mean(lengths) / lengths[k] * grads[k] for k in range(num_tasks)]
        else:
            terms = [np.abs(running[k] / (1 - 0.9**number)) / scale * grads[k] for k in range(num_tasks)]
        found.append(num_tasks * sum(terms))
    return found


def config(rows: np.ndarray) -> np.ndarray:
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    best = np.linalg.lstsq(units, np.ones(len(rows)), rcond=None)[0]
    best = best / np.linalg.norm(best)
    return sum(row @ best for row in rows) * best


def momentum_config(run: Run) -> list[np.ndarray]:
    num_tasks = len(run[1][0])
    running, counts = np.zeros_like(run[0][0]), np.zeros(num_tasks)
    last, squares, found = np.zeros(running.shape[1]), np.zeros(running.shape[1]), []
    for number, grads in enumerate(run[0], start=1):
        task = (number - 1) % num_tasks
        counts[task] += 1
        running[task] = 0.9 * running[task] + 0.1 * grads[task]
        direction = config(np.array([running[k] / (1 - 0.9 ** counts[k]) for k in range(num_tasks) if counts[k]]))
        fresh = (direction * (1 - 0.9**number) - 0.9 * last * (1 - 0.9 ** (number - 1))) / 0.1
        squares, last = 0.999 * squares + 0.001 * fresh**2, direction
        found.append(direction / (np.sqrt(squares / (1 - 0.999**number)) + 1e-8))
    return found


def angle(cosine: float) -> float:
    if cosine <= -0.8:
        return math.pi
    if cosine < -0.5:
        return math.pi / 2 + math.pi / 2 * ((cosine + 0.5) / -0.3) ** 2
    return math.pi / 2 * (1 - (cosine + 0.5) / 0.5)


def cos(first: np.ndarray, second: np.ndarray) -> float:
    lengths = np.linalg.norm(first) * np.linalg.norm(second)
    return first @ second / lengths if lengths > 0 else 0.0


def gcond(run: Run) -> list[np.ndarray]:
    """On the gradients themselves, where ours works on their Gramian."""
    num_tasks = len(run[1][0])
    previous, means, winners, momentum, found = None, None, [], 0.0, []
    for number, grads in enumerate(run[0], start=1):
        lengths = np.linalg.norm(grads, axis=1)
        means = lengths if means is None else 0.95 * means + 0.05 * lengths
        steady = [0.0 if previous is None else max(0.0, cos(grads[k], previous[k])) for k in range(num_tasks)]
        rows, ratio = grads.copy(), lengths / means
        for _ in range(2 * num_tasks):
            cosine, i, j = min((cos(rows[i], rows[j]), i, j) for i, j in combinations(range(num_tasks), 2))
            if cosine >= -1e-9:  # rounding after a projection is no conflict
                break
            scores = {k: 0.8 * steady[k] + 0.2 * ratio[k] / (ratio[i] + ratio[j]) for k in (i, j)}
            winner, loser = (i, j) if scores[i] >= scores[j] - 1e-12 else (j, i)
            if winners[-3:] == [winner] * 3:
                winner, loser = loser, winner
            winners.append(winner)
            alpha, inner = angle(cosine), rows[winner] @ rows[loser]
            won = rows[winner] - math.sin(alpha) * inner / (rows[loser] @ rows[loser]) * rows[loser]
            lost = (
                rows[loser] - math.sin(min(alpha, math.pi / 2)) * inner / (rows[winner] @ rows[winner]) * rows[winner]
            )
            rows[winner], rows[loser] = won, lost
        previous = grads
        momentum = 0.85 * momentum + 0.15 * rows.sum(axis=0)
        found.append(momentum / (1 - 0.85**number))
    return found


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("make", "reference"),
    [
        (MoCo, moco),
        (DBMTL, lambda run: dbmtl(run, 0.9, 0.0)),
        (lambda: DBMTL(beta=0.5, sigma=0.5), lambda run: dbmtl(run, 0.5, 0.5)),
        (lambda: DBMTL(beta=0.0), lambda run: dbmtl(run, 0.0, 0.0)),
        (ExcessMTL, excessmtl),
        (SAMGS, lambda run: samgs(run, 0.7)),
        (lambda: SAMGS(gamma=0.1), lambda run: samgs(run, 0.1)),
        (MomentumConFIG, momentum_config),
        (GCond, gcond),
    ],
)
def test_runs_are_those_of_a_plain_loop(make: Callable[[], Balancer], reference: Callable, seed: int) -> None:
    run = drawn(seed, num_tasks=3 + seed % 2)
    check_run(make(), reference(run), run)


def test_gcond_meets_every_strength_of_conflict() -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        opposite = generator.normal(size=2)
        grads = [np.array([opposite, -opposite + generator.normal(size=2)]) for _ in range(6)]
        run = (grads, [np.ones(2)] * 6)
        check_run(GCond(), gcond(run), run)
    assert [smooth_angle(c) for c in (0.0, -0.5, -0.8, -1.0)] == pytest.approx([0, math.pi / 2, math.pi, math.pi])
    assert smooth_angle(-0.65) == pytest.approx(math.pi / 2 * 1.25)


def test_gcond_leaves_the_steadier_task_whole_in_a_strong_conflict() -> None:
    method = GCond(momentum=0.0)
    for number in range(3):
        fickle, steady = np.array([-0.9, 0.4 * (-1) ** number]), np.array([1.0, 0.0])
        direction = step(method, np.array([fickle, steady]), np.ones(2))[0]
        if number:  # at the first step nobody has a past, and the first name wins
            assert direction.tolist() == pytest.approx([1.0, fickle[1]])


def test_gcond_makes_the_winner_of_three_in_a_row_lose_the_fourth() -> None:
    steady = np.array([1.0, 0.0])
    method = GCond(momentum=0.0)
    kept = []
    for _ in range(5):  # both are as steady as can be: the first name wins each tie, but never four times in a row
        direction = step(method, np.array([steady, -steady * 2]), np.ones(2))[0]
        kept.append(direction[0])
    assert kept == pytest.approx([1, 1, 1, -2, 1])


def test_dbmtl_without_memory_never_forms_the_jacobian(monkeypatch: pytest.MonkeyPatch) -> None:
    run = drawn(0, 1)
    expected = dbmtl(run, 0.0, 0.0)
    monkeypatch.setattr(View, "jacobian", property(lambda self: pytest.fail("the Jacobian was formed")))
    direction, done = step(DBMTL(beta=0.0), run[0][0], run[1][0])
    np.testing.assert_allclose(direction, expected[0], rtol=1e-6)
    assert set(done.weights) == {"a", "b", "c"}
    assert DBMTL(beta=0.0).state_dict() == {}


def test_excessmtl_is_not_drawn_to_a_loss_that_stays_high() -> None:
    method = ExcessMTL(step_size=1.0)
    for number in range(200):
        noise = (-1.0) ** number
        grads = np.array([[1.0, 0.0], [0.01 * noise, 0.01 * noise]])
        grads[0] *= 1.0 if number < 100 else 1e-3
        done = step(method, grads, np.array([0.5, 50.0]))[1]
    assert 0 < done.weights["a"] < 2
    assert sum(done.weights.values()) == pytest.approx(2)


def test_momentum_config_goes_back_only_through_the_task_whose_turn_it_is() -> None:
    trunk, heads = nn.Linear(3, 4), nn.ModuleDict({name: nn.Linear(4, 1) for name in "abc"})
    method, inputs = MomentumConFIG(), torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    for expected in "abca":
        trunk.zero_grad()
        heads.zero_grad()
        losses = {name: head(trunk(inputs)).pow(2).mean() for name, head in heads.items()}
        assert method.choose(losses) == expected
        done = method.backward(losses, shared=trunk.parameters())
        assert {name for name, weight in done.weights.items() if weight} == {expected}
        assert {name for name, head in heads.items() if head.weight.grad is not None} == {expected}
        assert trunk.weight.grad.abs().sum() > 0


def test_conflict_free_has_one_angle_to_all_and_stands_still_between_opposites() -> None:
    rows = torch.randn(4, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    rows *= torch.tensor([[1e-12], [1.0], [1e12], [3.0]])
    direction = conflict_free(rows)
    cosines = (rows @ direction) / rows.norm(dim=1) / direction.norm()
    assert cosines.min() > 0
    assert cosines.max() - cosines.min() < 1e-9
    assert conflict_free(torch.tensor([[1.0, 2.0], [-1.0, -2.0]])).abs().sum() == 0


# Signs ---------------------------------------------------------------------------------------------------------------


def test_graddrop_keeps_a_sign_as_often_as_it_is_pure() -> None:
    grads = np.array([[3.0, 1.0, 2.0], [-1.0, -1.0, 2.0]])
    method = GradDrop(seed=3)
    found = np.array([step(method, grads, np.ones(2))[0] for _ in range(2000)])
    assert set(found[:, 0]) == {3.0, -1.0}
    assert set(found[:, 2]) == {4.0}
    assert (found[:, 0] > 0).mean() == pytest.approx(0.75, abs=0.03)
    assert (found[:, 1] > 0).mean() == pytest.approx(0.5, abs=0.03)
    again = GradDrop(seed=3)
    assert np.array_equal(found[:20], [step(again, grads, np.ones(2))[0] for _ in range(20)])


def test_graddrop_leaks() -> None:
    grads = np.array([[3.0], [-1.0]])
    found = {round(step(method, grads, np.ones(2))[0].item(), 6) for method in [GradDrop(leak=0.25)] for _ in range(50)}
    assert found == {3 - 0.25, 0.25 * 3 - 1}


def test_graddrop_at_features_votes_over_the_batch_with_the_features_signs() -> None:
    base = torch.tensor([[1.0, -2.0], [3.0, -1.0], [-0.5, 4.0]], dtype=torch.float64)
    saliency = torch.tensor([[[1.0, 1], [2, 0], [5, 1]], [[-4.0, 2], [-1, 0], [-6, 3]]], dtype=torch.float64)
    votes = (base.sign() * saliency).sum(1)  # task 0: 1 + 2 − 5 = −2 and −1 + 0 + 1 = 0; task 1: −4 − 1 + 6 = 1 and 1
    assert votes.tolist() == [[-2, 0], [1, 1]]
    firsts = []
    for seed in range(300):
        leaf = base.clone().requires_grad_()
        z = leaf * 1.0
        GradDrop(seed=seed).backward({"a": (saliency[0] * z).sum(), "b": (saliency[1] * z).sum()}, features=z)
        first, second = leaf.grad[:, 0], leaf.grad[:, 1]
        assert torch.equal(second, saliency[1, :, 1])  # the only vote at the second feature
        firsts.append(torch.equal(first, saliency[1, :, 0]))  # one mask for all rows
        assert firsts[-1] or torch.equal(first, saliency[0, :, 0])
    assert np.mean(firsts) == pytest.approx(1 / 3, abs=0.09)  # ½ (1 + (1 − 2) / 3)


# Independent parts of a batch ----------------------------------------------------------------------------------------


def at_features(method: Balancer, saliency: Tensor) -> Tensor:
    """The gradient (B, F) at the features for a prescribed saliency (T, B, F)."""
    leaf = torch.zeros_like(saliency[0], requires_grad=True)
    z = leaf * 1.0
    method.backward({f"t{k}": (rows * z).sum() + 1 for k, rows in enumerate(saliency)}, features=z)
    return leaf.grad


def noisy(seed: int, num_rows: int) -> Tensor:
    return 0.1 * torch.randn(3, num_rows, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("num_rows", [3, 7, 12])
def test_sdmgrad_weighs_each_part_by_the_other_two(num_rows: int, seed: int) -> None:
    saliency = noisy(seed, num_rows).numpy()
    parts = [list(range(fold, num_rows, 3)) for fold in range(3)]
    means = [saliency[:, rows].sum(1) * num_rows / len(rows) for rows in parts]
    expected = np.zeros_like(saliency[0])
    for fold in range(3):
        one, two = means[(fold + 1) % 3], means[(fold + 2) % 3]
        matrix = np.array([[(one[i] @ two[j] + one[j] @ two[i]) / 2 for j in range(3)] for i in range(3)])
        matrix /= np.mean(np.sqrt(np.maximum(np.diag(matrix), 0) + 1e-4)) ** 2
        weights, velocity = np.full(3, 1 / 3), np.zeros(3)
        for _ in range(20):
            velocity = 0.5 * velocity + matrix @ weights + 0.3 * matrix @ np.full(3, 1 / 3)
            weights = nearest_on_simplex(weights - 10 * velocity)
        for row in parts[fold]:
            expected[row] = (weights + 0.3 / 3) @ saliency[:, row] / 1.3
    np.testing.assert_allclose(at_features(SDMGrad(), noisy(seed, num_rows)).numpy(), expected, atol=1e-9)


def test_sdmgrad_descends_to_the_minimum_where_its_matrix_is_a_gramian() -> None:
    # min ½ wᵀ A w + λ wᵀ A 1/2 with A = diag(1, 3), λ = 0.3: w₁ (1) − 3 w₂ + 0.15 (1 − 3) = 0 with w₁ + w₂ = 1.
    matrix = torch.diag(torch.tensor([1.0, 3.0], dtype=torch.float64)) / 100
    found = descend(matrix, strength=0.3, num_steps=400)
    assert found.tolist() == pytest.approx([3.3 / 4, 0.7 / 4])
    # Two steps by hand with A = diag(1, 3) / 100: descents of 10 v from (½, ½), v less its mean, so that Σ w = 1.
    # v = (0.65, 1.95) / 100, w = (0.565, 0.435); v = ½ v + (0.565 + 0.15, 1.305 + 0.45) / 100 = (1.04, 2.73) / 100.
    assert descend(matrix, strength=0.3, num_steps=2).tolist() == pytest.approx([0.6495, 0.3505])


def test_modo_moves_its_weights_by_one_step() -> None:
    method, weights = MoDo(gamma=0.1), np.full(3, 1 / 3)
    for seed in range(5):
        saliency = noisy(seed, 7).numpy()
        one, two = (7 / rows * saliency[:, fold::2].sum(1) for fold, rows in enumerate((4, 3)))
        pull = (one @ two.T + two @ one.T) / 2 @ weights + 0.1 * weights
        weights = nearest_on_simplex(weights - 0.1 * pull)
        assert weights.min() > 0
        found = at_features(method, noisy(seed, 7)).numpy()
        np.testing.assert_allclose(found, np.tensordot(weights, saliency, axes=1), atol=1e-9)


@pytest.mark.parametrize("method", [SDMGrad(), MoDo()])
def test_too_few_rows_get_equal_weights_and_no_features_an_error(method: Balancer) -> None:
    saliency = noisy(0, 1)
    torch.testing.assert_close(at_features(method, saliency), saliency.mean(0))
    with pytest.raises(RequestError, match=f"{type(method).__name__} needs independent estimates.*Pass features=z"):
        step(method, np.ones((2, 3)), np.ones(2))


@pytest.mark.parametrize("size", [1, 2, 5, 64])
def test_projection_on_the_simplex_is_the_nearest_point(size: int) -> None:
    generator = np.random.default_rng(size)
    for scale in (1e-12, 1.0, 1e12):
        point = scale * generator.normal(size=size)
        found = project_on_simplex(torch.as_tensor(point)).numpy()
        np.testing.assert_allclose(found.sum(), 1)
        assert found.min() >= 0
        if scale <= 1:
            np.testing.assert_allclose(found, nearest_on_simplex(point), atol=1e-9)
    assert project_on_simplex(torch.tensor([5.0, 5.0])).tolist() == [0.5, 0.5]


# State ---------------------------------------------------------------------------------------------------------------

STATEFUL = [MoCo, DBMTL, ExcessMTL, SAMGS, MomentumConFIG, GCond, GradDrop]


@pytest.mark.parametrize("kind", STATEFUL)
def test_a_resumed_run_goes_on_exactly(kind: type[Balancer]) -> None:
    run = list(zip(*drawn(0), strict=True))
    run[2] = (run[2][0][:2], run[2][1][:2])  # a batch without the third task
    first, second = kind(), kind()
    for grads, losses in run[:6]:
        step(first, grads, losses)
    second.load_state_dict({key: value.clone() for key, value in first.state_dict().items()})
    for grads, losses in run[6:]:
        assert np.array_equal(step(first, grads, losses)[0], step(second, grads, losses)[0])
    first.reset()
    fresh = kind()
    for grads, losses in run[:3]:
        assert np.array_equal(step(first, grads, losses)[0], step(fresh, grads, losses)[0])


@pytest.mark.parametrize("kind", [MoCo, DBMTL, ExcessMTL, SAMGS, GCond])
def test_a_task_that_is_missing_keeps_its_state(kind: type[Balancer]) -> None:
    (first, second, third), losses = drawn(1, 3)
    method, other = kind(), kind()
    for balancer in (method, other):
        step(balancer, first, losses[0])
    before = {key: value.clone() for key, value in method.state_dict().items() if key.endswith("task:c")}
    step(method, second[:2], losses[1])
    after = method.state_dict()
    for key, value in before.items():
        if not key.startswith("streaks."):
            assert torch.equal(after[key], value), key
    assert np.isfinite(step(method, third, losses[2])[0]).all()


@pytest.mark.parametrize("kind", [MoCo, DBMTL, ExcessMTL, SAMGS, MomentumConFIG, GCond])
def test_other_shared_parameters_than_before_are_refused(kind: type[Balancer]) -> None:
    method = kind()
    step(method, np.ones((1, 4)), np.ones(1))
    with pytest.raises(RequestError, match=r"'a' has a state of shape \(4,\).*reset\(\)"):
        step(method, np.ones((1, 5)), np.ones(1))


@pytest.mark.parametrize("kind", [MoCo, DBMTL, lambda: DBMTL(beta=0.0), ExcessMTL, SAMGS, GCond, GradDrop])
def test_a_task_without_a_gradient_is_no_trouble(kind: Callable[[], Balancer]) -> None:
    grads = np.array([[0.0, 0.0], [30.0, 0.0], [0.0, 2.0]])
    for method in (kind(), kind()):
        for _ in range(3):
            direction = step(method, grads, np.ones(3))[0]
            assert np.isfinite(direction).all()
            assert np.abs(direction).sum() > 0
            grads = grads[[1, 0, 2]]


@pytest.mark.parametrize("kind", [MoCo, DBMTL, ExcessMTL, SAMGS, MomentumConFIG, GCond, GradDrop])
@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_float32_neither_overflows_nor_vanishes(kind: type[Balancer], scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    method = kind()
    for _ in range(3):
        shared = torch.zeros(50, requires_grad=True)
        grads = scale * torch.randn(4, 50, generator=generator).abs()
        method.backward(
            {name: (grad * shared).sum() + 1 for name, grad in zip("abcd", grads, strict=True)}, shared=[shared]
        )
        assert torch.isfinite(shared.grad).all()
        assert shared.grad.abs().sum() > 0
