"""aTLAS without labels: which answers are believed, the loss on them, and what that teaches."""

import math

import pytest
import torch
from learned_cases import experts_of, inputs, network
from torch import nn

from motet import MotetError
from motet.merge.learned import PseudoLabels, atlas_unlabelled


def same(rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return rows


def test_the_surest_rows_of_each_class_are_trusted():
    """By hand: a fifth of five rows over two classes is less than one, so one of each class is trusted."""
    shares = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.45, 0.55], [0.99, 0.01], [0.3, 0.7]])
    assert PseudoLabels(augment=same, trusted=0.2).trust(shares).tolist() == [-1, -1, -1, 0, 1]
    assert PseudoLabels(augment=same, trusted=0.8).trust(shares).tolist() == [0, -1, 1, 0, 1]
    assert PseudoLabels(augment=same, trusted=0.8, most=1).trust(shares).tolist() == [-1, -1, -1, 0, 1]
    # A row that is the surest of a class which is not its likeliest keeps its likeliest.
    assert PseudoLabels(augment=same, trusted=0.2).trust(torch.tensor([[0.9, 0.1], [0.8, 0.2]])).tolist() == [0, 0]


def test_the_loss_counts_trusted_and_sure_rows_alone():
    """By hand: −log of the changed view's probability of the trusted class, and a soft target of a sure row."""
    plain = torch.tensor([[0.2, 0.8], [0.95, 0.05], [0.5, 0.5]]).log()
    changed = torch.tensor([[0.6, 0.4], [0.7, 0.3], [0.1, 0.9]]).log()
    known = torch.tensor([0, -1, -1])
    labels = PseudoLabels(augment=same, threshold=0.9)
    wanted = (-math.log(0.6) - 0.95 * math.log(0.7) - 0.05 * math.log(0.3)) / 2
    assert float(labels.loss(lambda rows: rows, 0, (plain, changed, known))) == pytest.approx(wanted, abs=1e-6)


def test_no_gradient_comes_from_the_plain_views_nor_from_rows_that_do_not_count():
    plain, changed = torch.zeros(3, 2, requires_grad=True), torch.zeros(3, 2, requires_grad=True)
    nothing = torch.full((3,), -1)
    labels = PseudoLabels(augment=same, threshold=0.9)
    loss = labels.loss(lambda rows: rows, 0, (plain, changed, nothing))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert not changed.grad.any()
    labels.loss(lambda rows: rows, 0, (plain, changed, torch.tensor([1, -1, -1]))).backward()
    assert changed.grad[0].any()
    assert not changed.grad[1:].any()
    assert plain.grad is None


def turned(angle: float) -> dict[str, torch.Tensor]:
    return {"weight": torch.tensor([[math.cos(angle), math.sin(angle)], [-math.cos(angle), -math.sin(angle)]]) * 4}


def clusters() -> tuple[torch.Tensor, torch.Tensor]:
    """Two classes to the left and to the right, wide from top to bottom."""
    generator = torch.Generator().manual_seed(0)
    classes = torch.arange(400) % 2
    rows = torch.randn(400, 2, generator=generator) * torch.tensor([0.4, 2.0])
    return rows + torch.stack([2.0 - 4.0 * classes, torch.zeros(400)], dim=1), classes


def right(state: dict[str, torch.Tensor]) -> float:
    rows, classes = clusters()
    return float(((rows @ state["weight"].T).argmax(1) == classes).double().mean())


def learned(steps: int, **options) -> dict[str, torch.Tensor]:
    """A base that is turned away from the classes, and experts that turn to them and further away."""
    model = nn.Linear(2, 2, bias=False)
    labels = PseudoLabels(
        augment=lambda rows, generator: rows + 0.3 * torch.randn(rows.shape, generator=generator), **options
    )
    rows, _ = clusters()
    experts = [turned(0.0), turned(1.6)]
    return atlas_unlabelled(model, turned(0.8), experts, [rows, None], labels=labels, steps=steps, rate=0.02)


def test_it_begins_at_the_base_and_learns_without_labels():
    start, end = learned(0), learned(120)
    assert torch.equal(start["weight"], turned(0.8)["weight"])
    assert right(end) > right(start) + 0.03
    assert torch.equal(end["weight"], learned(120)["weight"])
    assert not torch.equal(end["weight"], learned(120, seed=1)["weight"])


def test_logits_say_what_outputs_mean():
    """A head that swaps the classes makes of the base's answers the opposite ones, and learns the same from them."""
    swapped = learned(40, logits=lambda call, expert, rows: call(rows).flip(1))
    assert torch.allclose(swapped["weight"], learned(40)["weight"], atol=1e-6)


def test_a_quarter_of_each_batch_is_trusted_and_rows_come_equally_often():
    seen, known = [], []

    class Watched(PseudoLabels):
        def loss(self, call, expert, batch):
            seen.append(batch[0])
            known.append((batch[2] >= 0).sum().item())
            return super().loss(call, expert, batch)

    net = network()
    rows = inputs(1, 20)[0]
    labels = Watched(augment=same, batch=8, trusted=0.6, most=4)
    trusted = labels.trust(torch.softmax(net(rows).detach(), 1)) >= 0
    atlas_unlabelled(net, net.state_dict(), experts_of(net, 2), [rows, None], labels=labels, steps=20)
    assert known == [2] * 20
    counts = torch.tensor([sum(int((part == row).all(1).sum()) for part in seen) for row in rows])
    for chosen in (trusted, ~trusted):
        assert int(counts[chosen].max() - counts[chosen].min()) <= 1
    assert 0 < int(trusted.sum()) < 20


@pytest.mark.parametrize(
    ("call", "advice"),
    [
        (lambda: PseudoLabels(augment=same, threshold=1.2), "Change threshold"),
        (lambda: PseudoLabels(augment=same, trusted=-0.1), "Change trusted"),
        (lambda: PseudoLabels(augment=same, batch=1), "Raise the one that is below"),
        (lambda: refused([None, None]), "Pass None for an expert without rows"),
        (lambda: refused([inputs(1)[0]]), "Inputs of 1 tasks arrived for 2 experts"),
    ],
)
def test_what_cannot_be_done_is_refused(call, advice):
    with pytest.raises(MotetError, match=advice):
        call()


def refused(rows: list) -> None:
    net = network()
    labels = PseudoLabels(augment=same)
    atlas_unlabelled(net, net.state_dict(), experts_of(net, 2), rows, labels=labels, steps=1)
