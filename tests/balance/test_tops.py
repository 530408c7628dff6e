"""Where tasks meet: gradients kept as what they are made of, against one plain backward a task."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from motet.balance.engine._graph import read_above
from motet.balance.engine._top_pass import TopPass, read_tops
from motet.balance.engine._view import View

WEIGHTS = torch.tensor([0.5, 2.0, 0.25], dtype=torch.float64)
Losses = Callable[[Tensor, nn.ModuleList], list[Tensor]]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_head(z: Tensor, heads: nn.ModuleList) -> list[Tensor]:
    return [head(z).square().mean() for head in heads]


def by_split(z: Tensor, heads: nn.ModuleList) -> list[Tensor]:
    return [head(part).square().mean() for head, part in zip(heads, z.split([2, 3, 4]), strict=True)]


def by_rows_and_all(z: Tensor, heads: nn.ModuleList) -> list[Tensor]:
    return [heads[0](z).mean(), z[:-3].square().mean(), z[2:5].exp().mean()]


def by_head_but_one(z: Tensor, heads: nn.ModuleList) -> list[Tensor]:
    return [heads[0](z).mean(), heads[1](z).mean(), heads[2](z.detach()).mean()]


def by_a_common_tower(z: Tensor, heads: nn.ModuleList) -> list[Tensor]:
    hidden = z.tanh()
    return [heads[0](hidden).mean(), heads[1](hidden).square().mean(), heads[2](z).mean()]


CASES: dict[str, tuple[Losses, bool]] = {  # and whether all tasks are passed through at once
    "a matrix each": (by_head, True),
    "a matrix twice": (lambda z, heads: [head(z).square().mean() + head(z).exp().mean() for head in heads], True),
    "a split": (by_split, True),
    "rows, and a matrix on all": (by_rows_and_all, True),
    "rows that repeat": (lambda z, heads: [heads[k](z[[0, 0, k]]).square().mean() for k in range(3)], True),
    "a common tower": (by_a_common_tower, False),
    "the features themselves": (lambda z, heads: [z.square().mean(), heads[0](z).mean(), heads[1](z).mean()], False),
    "a task that lacks them": (by_head_but_one, True),
}  # fmt: skip


def build(case: str) -> tuple[Tensor, nn.ModuleList, dict[str, Tensor]]:
    torch.manual_seed(0)
    z = (random(9, 5).requires_grad_() * 1.0).tanh()
    heads = nn.ModuleList([nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2)) for _ in range(3)]).double()
    return z, heads, {str(k): loss for k, loss in enumerate(CASES[case][0](z, heads))}


def plain(losses: dict[str, Tensor], at: list[Tensor]) -> list[list[Tensor]]:
    return [
        list(torch.autograd.grad(loss, at, retain_graph=True, allow_unused=True, materialize_grads=True))
        for loss in losses.values()
    ]


@pytest.mark.parametrize("case", CASES)
def test_all_that_is_asked_of_them_equals_plain_backwards(case: str) -> None:
    z, heads, losses = build(case)
    expected = torch.stack([grads[0] for grads in plain(losses, [z])])
    view = View(losses, None, [z], method="Test")
    flat = expected.flatten(1)
    torch.testing.assert_close(view.combined(WEIGHTS)[0], torch.tensordot(WEIGHTS, expected, dims=1))
    torch.testing.assert_close(view.gramian, flat @ flat.T)
    torch.testing.assert_close(view.saliency[0], expected)
    torch.testing.assert_close(view.combined(WEIGHTS)[0], torch.tensordot(WEIGHTS, expected, dims=1))
    own = {id(leaf): grad for leaf, grad in view.own_grads}
    for leaf, *grads in zip(heads.parameters(), *plain(losses, list(heads.parameters())), strict=True):
        torch.testing.assert_close(own.get(id(leaf), torch.zeros_like(leaf)), sum(grads))


@pytest.mark.parametrize("case", CASES)
def test_chosen_rows_are_those_of_the_whole(case: str) -> None:
    z, _, losses = build(case)
    top = passed(losses, [z]).tops[0]
    index = torch.tensor([7, 0, 2])
    torch.testing.assert_close(top.some(index), top.dense[:, index])


def passed(losses: dict[str, Tensor], features: list[Tensor]) -> TopPass:
    graph = read_above(losses, features)
    return read_tops(list(losses.values()), graph, graph.frontier, [], graph.leaves)


@pytest.mark.parametrize("case", CASES)
def test_one_pass_serves_all_tasks_where_it_can(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    z, _, losses = build(case)
    calls = []
    grad = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: calls.append(1) or grad(*a, **k))
    passed(losses, [z])
    assert len(calls) == (1 if CASES[case][1] else 3)


def test_features_of_which_one_is_made_of_the_other_are_both_right() -> None:
    start = random(6, 5).requires_grad_() * 1.0
    head = nn.Linear(5, 3).double()
    later = head(start).tanh()
    losses = {"a": later.square().mean() + start.mean(), "b": later.exp().mean(), "c": start.square().mean()}
    expected = plain(losses, [start, later])
    view = View(losses, None, [start, later], method="Test")
    for place, part in enumerate(view.saliency):
        torch.testing.assert_close(part, torch.stack([grads[place] for grads in expected]))


def test_features_may_be_a_leaf() -> None:
    z, head = random(6, 5).requires_grad_(), nn.Linear(5, 3).double()
    losses = {"a": head(z).square().mean(), "b": z.square().mean()}
    expected = torch.stack([grads[0].flatten() for grads in plain(losses, [z])])
    torch.testing.assert_close(View(losses, None, [z], method="Test").gramian, expected @ expected.T)
