"""Laws that every kind of task keeps."""

import json

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from task_problems import PROBLEMS, Problem, make_problem

from motet import tasks
from motet._errors import RequestError

SHARED = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
PROBABILITIES = (tasks.Binary, tasks.Multiclass, tasks.Multilabel, tasks.Ordinal)


@pytest.fixture(params=PROBLEMS)
def problem(request: pytest.FixtureRequest) -> Problem:
    return make_problem(request.param)


def random_outputs(task: tasks.Task, rows: int, seed: int, spread: float = 2.0) -> torch.Tensor:
    return spread * torch.randn(rows, task.num_outputs, generator=torch.Generator().manual_seed(seed))


def test_a_task_that_is_not_fitted_says_so(problem: Problem):
    task = problem.task
    outputs, targets = torch.zeros(2, 3), torch.zeros(2)
    calls = [lambda: task.loss(outputs, targets), lambda: task.estimate(outputs)]
    if isinstance(task, (tasks.Quantile, tasks.Regression, tasks.Count)):
        calls = calls[:1] if isinstance(task, tasks.Count) else calls
    else:
        calls = [calls[0], lambda: task.encode(problem.values, problem.present), lambda: task.read(np.zeros((2, 3)))]
    assert not task.is_fitted
    for call in calls:
        with pytest.raises(RequestError, match=r"Task 'y' .* before it is fitted.*Call task = task\.fit"):
            call()


def test_fit_gives_a_frozen_copy_that_survives_json_and_repr(problem: Problem):
    fitted = problem.fitted
    assert fitted.is_fitted
    assert not problem.task.is_fitted
    back = tasks.from_dict(json.loads(json.dumps(fitted.to_dict())))
    assert back == fitted
    assert hash(back) == hash(fitted)
    assert eval(repr(fitted), {name: getattr(tasks, name) for name in tasks.__all__}) == fitted
    assert tasks.from_dict(problem.task.to_dict()) == problem.task
    with pytest.raises(AttributeError):
        fitted.name = "other"


def test_fitting_again_changes_nothing_and_renaming_keeps_the_columns(problem: Problem):
    fitted = problem.fitted
    assert fitted.fit(problem.values, problem.present) == fitted
    assert fitted.renamed("z").label_columns == fitted.label_columns


def test_targets_are_zero_where_absent_whatever_lies_there(problem: Problem):
    values = problem.values.astype(object) if problem.values.dtype.kind in "iU" else problem.values.copy()
    values[~problem.present] = np.nan
    fitted = problem.task.fit(values, problem.present)
    targets, known = fitted.encode(values, problem.present)
    before, _ = problem.fitted.encode(problem.values, problem.present)
    assert known.dtype == bool
    assert not (known & ~problem.present).any()
    assert (targets[~known] == 0).all()
    np.testing.assert_array_equal(targets, before)
    assert targets.dtype == (np.int64 if isinstance(fitted, (tasks.Multiclass, tasks.Ordinal)) else np.float32)


@SHARED
@given(seed=st.integers(0, 1000), spread=st.sampled_from([0.0, 1.0, 30.0, 1e4]))
def test_estimates_are_valid(problem: Problem, seed: int, spread: float):
    task = problem.fitted
    estimates = task.estimate(random_outputs(task, 50, seed, spread)).numpy()
    assert np.isfinite(estimates).all()
    assert len(estimates) == 50
    if isinstance(task, PROBABILITIES):
        assert (estimates >= 0).all()
        assert (estimates <= 1).all()
    if isinstance(task, (tasks.Multiclass, tasks.Ordinal)):
        np.testing.assert_allclose(estimates.sum(axis=1), 1, atol=1e-5)
    if isinstance(task, tasks.Quantile):
        assert (np.diff(estimates, axis=1) >= 0).all()
    if isinstance(task, tasks.Count):
        assert (estimates > 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [0.0, 1.0, 1e4])
def test_losses_and_gradients_are_finite_for_extreme_outputs(problem: Problem, dtype: torch.dtype, size: float):
    task, targets = problem.fitted, torch.from_numpy(problem.targets)
    signs = torch.sign(random_outputs(task, len(targets), 1))
    outputs = (size * signs).to(dtype).requires_grad_()
    losses = task.loss(outputs, targets)
    assert losses.shape == (len(targets),)
    assert losses.dtype == torch.float32
    assert torch.isfinite(losses).all()
    losses.sum().backward()
    assert torch.isfinite(outputs.grad).all()


def test_rows_without_a_label_have_no_part_in_the_loss(problem: Problem):
    task = problem.fitted
    encoded, known = task.encode(problem.values, problem.present)
    targets, present = torch.from_numpy(encoded), torch.from_numpy(known)
    outputs = random_outputs(task, len(targets), 2).requires_grad_()
    loss = task.masked_loss(outputs, targets, present)
    loss.backward()
    torch.testing.assert_close(loss, task.loss(outputs, targets)[present].mean())
    assert (outputs.grad[~present] == 0).all()
    assert (outputs.grad[present] != 0).any()
    outputs.grad = None
    nothing = task.masked_loss(outputs, targets, torch.zeros_like(present))
    nothing.backward()
    assert nothing.item() == 0
    assert (outputs.grad == 0).all()


def test_a_batch_without_rows(problem: Problem):
    task = problem.fitted
    outputs = torch.zeros(0, task.num_outputs, requires_grad=True)
    targets = torch.from_numpy(problem.targets[:0])
    loss = task.masked_loss(outputs, targets, torch.zeros(0, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert len(task.decode(outputs)) == 0
    assert all(
        np.isnan(value) for value in task.metrics(task.estimate(outputs).detach().numpy(), targets.numpy()).values()
    )


def test_initial_outputs_give_the_baseline(problem: Problem):
    task, targets = problem.fitted, problem.targets
    initial = torch.from_numpy(task.initial_outputs(targets))[None]
    assert initial.shape == (1, task.num_outputs)
    np.testing.assert_allclose(task.estimate(initial).numpy(), task.baseline(targets), rtol=1e-6)


@SHARED
@given(seed=st.integers(0, 1000), size=st.sampled_from([0.02, 0.3, 3.0]))
def test_no_other_constant_has_a_lower_loss_than_the_initial_outputs(problem: Problem, seed: int, size: float):
    task, targets = problem.fitted, torch.from_numpy(problem.targets)
    if isinstance(task, tasks.Multilabel) and task.columns:
        targets = targets[~targets.isnan().any(dim=1)]  # rows with fewer known labels weigh them more
    initial = torch.from_numpy(task.initial_outputs(targets.numpy()))
    move = size * torch.randn(task.num_outputs, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    if isinstance(task, tasks.Count):
        move[1:] = 0  # the size starts from moments, not from the best likelihood
    best, other = (task.loss(raw.expand(len(targets), -1), targets).mean() for raw in (initial, initial + move))
    # A quantile of finitely many rows lies between two of them, where the loss is flat to 1/N.
    assert best <= other + (1e-3 if isinstance(task, tasks.Quantile) else 1e-9)


@SHARED
@given(seed=st.integers(0, 1000))
def test_score_does_not_depend_on_row_order_and_weights_mean_repeats(problem: Problem, seed: int):
    task, targets = problem.fitted, problem.targets
    estimates = task.estimate(random_outputs(task, len(targets), seed)).numpy()
    estimates = np.round(estimates, 2) if isinstance(task, PROBABILITIES) else estimates  # ties
    generator = np.random.default_rng(seed)
    drawn = generator.integers(0, len(targets), (3, len(targets)))
    weights = np.stack([np.bincount(rows, minlength=len(targets)) for rows in drawn])
    alone = task.score(estimates, targets)
    assert alone.shape == (1,)
    assert task.metrics(estimates, targets)[task.metric] == alone[0]
    np.testing.assert_allclose(task.score(estimates, targets, np.ones((2, len(targets)))), np.repeat(alone, 2))
    order = generator.permutation(len(targets))
    np.testing.assert_allclose(task.score(estimates[order], targets[order]), alone)
    repeated = np.concatenate([task.score(estimates[rows], targets[rows]) for rows in drawn])
    np.testing.assert_allclose(task.score(estimates, targets, weights), repeated, rtol=1e-9)


def test_a_resample_without_rows_has_no_score(problem: Problem):
    task, targets = problem.fitted, problem.targets
    estimates = task.estimate(random_outputs(task, len(targets), 0)).numpy()
    scores = task.score(estimates, targets, np.stack([np.zeros(len(targets)), np.ones(len(targets))]))
    assert np.isnan(scores[0])
    assert np.isfinite(scores[1])


def test_the_baseline_scores_what_a_constant_scores(problem: Problem):
    task, targets = problem.fitted, problem.targets
    constant = np.repeat(task.baseline(targets), len(targets), axis=0)
    metrics = task.metrics(constant, targets)
    if task.metric.endswith("auc"):
        assert metrics[task.metric] == 0.5
    if "r2" in metrics:
        assert metrics["r2"] == pytest.approx(0, abs=1e-6)
    if "weighted_kappa" in metrics:
        assert metrics["weighted_kappa"] == pytest.approx(0, abs=1e-12)


def test_readings_are_labels_of_the_values_own_type(problem: Problem):
    task = problem.fitted
    readings = task.decode(random_outputs(task, 30, 5))
    assert len(readings) == 30
    if isinstance(task, tasks.Multilabel):
        assert {label for row in readings for label in row} == set(task.labels)
    elif isinstance(task, PROBABILITIES):
        assert readings.dtype.kind == problem.values.dtype.kind
        assert set(readings.tolist()) <= set(task.classes)
        again, known = task.encode(readings, np.ones(30, dtype=bool))
        assert known.all()
        np.testing.assert_array_equal(np.array(task.classes)[again.astype(int)], readings)


def test_wrong_shapes_are_named(problem: Problem):
    task = problem.fitted
    targets = torch.from_numpy(problem.targets[:4])
    good = torch.zeros(4, task.num_outputs)
    with pytest.raises(RequestError, match=rf"outputs of shape \(4, 9\).*Give its head num_outputs={task.num_outputs}"):
        task.loss(torch.zeros(4, 9), targets)
    with pytest.raises(RequestError, match=r"targets of shape \(4, 1, 1\).*as task\.encode gives them"):
        task.loss(good, torch.zeros(4, 1, 1))


def test_no_label_and_one_label_are_refused(problem: Problem):
    with pytest.raises(RequestError, match=r"Task 'y' has no label in any of the 400 rows.*Leave the task out"):
        problem.task.fit(problem.values, np.zeros(400, dtype=bool))
    same = np.concatenate([problem.values[:1]] * 400)
    if same.ndim == 2:
        same[:] = 1.0
    with pytest.raises(RequestError, match=r"Task 'y' has the label .* in all of its 400 labelled rows"):
        problem.task.fit(same, np.ones(400, dtype=bool))
