"""Losses and estimates against numbers from torch.distributions, scikit-learn or hand."""

import numpy as np
import pytest
import torch
from sklearn.metrics import mean_pinball_loss
from torch.distributions import NegativeBinomial, Poisson

from motet.tasks import Binary, Count, Multiclass, Ordinal, Quantile, Regression


def test_regression_is_half_the_squared_standard_error_and_comes_back_in_its_unit():
    task = Regression("y", center=10.0, scale=2.0)
    torch.testing.assert_close(task.loss(torch.tensor([[1.0]]), torch.tensor([16.0])), torch.tensor([2.0]))
    assert task.estimate(torch.tensor([[1.0]])).tolist() == [12.0]


def test_classes_at_equal_outputs():
    binary, several = Binary("y", classes=(0, 1)), Multiclass("y", classes=("a", "b", "c"))
    assert binary.loss(torch.zeros(1, 1), torch.ones(1)).item() == pytest.approx(np.log(2))
    assert several.loss(torch.zeros(1, 3), torch.tensor([2])).item() == pytest.approx(np.log(3))
    assert binary.loss(torch.tensor([[2.0]]), torch.ones(1)).item() == pytest.approx(np.log1p(np.exp(-2.0)))


@pytest.mark.parametrize("scale", [0.5, 1.0])
def test_poisson_likelihood(scale: float):
    task, raw, counts = Count("y", scale=scale), torch.tensor([[0.3], [-1.0], [2.0]]), torch.tensor([0.0, 2.0, 7.0])
    expected = -Poisson(scale * raw[:, 0].exp()).log_prob(counts)
    torch.testing.assert_close(task.loss(raw, counts), expected)
    torch.testing.assert_close(task.estimate(raw), scale * raw[:, 0].exp())


def test_poisson_loss_of_large_counts_is_divided_by_their_mean():
    task, raw, counts = Count("y", scale=200.0), torch.tensor([[0.1], [-0.2]]), torch.tensor([150.0, 260.0])
    torch.testing.assert_close(task.loss(raw, counts), -Poisson(200 * raw[:, 0].exp()).log_prob(counts) / 200)


def test_negative_binomial_likelihood():
    task, counts = Count("y", family="negative_binomial", scale=4.0), torch.tensor([0.0, 3.0, 40.0])
    raw = torch.tensor([[0.3, -1.0], [-1.0, 0.5], [1.5, 3.0]])
    mean, size = (4 * raw[:, 0].exp()).double(), (10 * torch.tanh(raw[:, 1] / 10)).exp().double()
    peer = NegativeBinomial(size, probs=mean / (mean + size))
    torch.testing.assert_close(task.loss(raw, counts), -peer.log_prob(counts.double()).float())


def test_the_mean_of_a_count_bends_without_a_jump():
    task = Count("y", scale=3.0)
    raw = torch.tensor([[9.999], [10.0], [10.001], [12.0]], dtype=torch.float64)
    means = task.estimate(raw).numpy() / (3 * np.exp(10.0))
    np.testing.assert_allclose(means, [np.exp(-0.001), 1.0, 1.001, 3.0])


def test_ordinal_shares_are_differences_of_the_cumulative_ones():
    task = Ordinal("y", classes=(0, 1, 2, 3))
    raw = torch.tensor([[0.7, -0.4, 1.2]], dtype=torch.float64)
    odds = np.cumsum([0.7, -np.log1p(np.exp(-0.4)), -np.log1p(np.exp(1.2))])
    above = np.concatenate([[1.0], 1 / (1 + np.exp(-odds)), [0.0]])
    np.testing.assert_allclose(task.estimate(raw).numpy()[0], -np.diff(above))
    losses = task.loss(raw.expand(4, -1), torch.arange(4)).numpy()
    np.testing.assert_allclose(losses, -np.log(-np.diff(above)))


def test_pinball_loss_is_that_of_the_estimates_over_the_scale():
    task = Quantile("y", levels=(0.2, 0.5, 0.7), center=5.0, scale=4.0)
    raw, targets = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)), torch.linspace(-3, 12, 20)
    estimates = task.estimate(raw).numpy()
    expected = np.mean([mean_pinball_loss(targets, estimates[:, i], alpha=q) for i, q in enumerate(task.levels)]) / 4
    assert task.loss(raw, targets).mean().item() == pytest.approx(expected, rel=1e-5)


def test_quantiles_that_coincide_start_a_little_apart_and_can_move():
    targets = np.array([0.0] * 80 + [10.0] * 20, dtype=np.float32)
    task = Quantile("y", levels=(0.1, 0.5, 0.7)).fit(targets, np.ones(100, dtype=bool))
    raw = torch.from_numpy(task.initial_outputs(targets))[None].requires_grad_()
    np.testing.assert_allclose(task.estimate(raw).detach().numpy(), [[-0.04, 0.0, 0.04]], atol=1e-6)  # scale 4
    task.estimate(raw).sum().backward()
    assert (raw.grad.abs() > 0.01).all()


def test_quantile_metrics_by_hand():
    task = Quantile("y", levels=(0.1, 0.6, 0.9))
    estimates = np.array([[0.0, 1.0, 2.0], [0.0, 3.0, 2.0], [5.0, 6.0, 7.0], [0.0, 0.0, 0.0]])
    metrics = task.metrics(estimates, np.array([2.0, 1.0, 1.0, 0.0]))
    assert metrics["coverage"] == 0.75
    assert metrics["crossing_rate"] == 0.25
    assert task.read(estimates).tolist() == [1.0, 3.0, 6.0, 0.0]


@pytest.mark.parametrize("family", ["poisson", "negative_binomial"])
def test_the_best_count_is_the_mean_of_the_samples(family: str):
    counts = torch.from_numpy(np.random.default_rng(0).negative_binomial(2, 0.2, 500).astype(np.float32))
    task = Count("y", family=family).fit(counts.numpy(), np.ones(500, dtype=bool))
    raw = torch.tensor([[1.0] * task.num_outputs], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([raw], max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = task.loss(raw.expand(500, -1), counts).mean()
        loss.backward()
        return loss

    optimiser.step(closure)
    assert task.estimate(raw).item() == pytest.approx(counts.mean().item(), rel=1e-4)


def test_estimates_and_losses_take_half_precision_outputs():
    task = Regression("y", center=1e4, scale=1.0)
    half = torch.tensor([[0.5]], dtype=torch.bfloat16)
    assert task.estimate(half).item() == 10_000.5
    assert task.loss(half, torch.tensor([10_001.5])).item() == 0.5
