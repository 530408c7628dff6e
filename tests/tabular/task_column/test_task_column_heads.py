"""Each row is answered by its own task's head in one pass, however many tasks there are."""

import numpy as np
import pytest
import torch

from motet.data import Features, TableRows
from motet.models import HardSharing, MultiTaskModel
from motet.tabular.task_column._gather import ROWS, own_heads
from motet.tasks import Multiclass, Regression, Task
from motet.train import estimate

KINDS = {
    "regression": lambda name: Regression(name, center=2.0, scale=3.0),
    "multiclass": lambda name: Multiclass(name, classes=("a", "b", "c")),
}


class Counted(torch.nn.Module):
    """An encoder that counts how often it is asked."""

    width = 6

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.calls = torch.nn.Linear(4, 6), 0

    def forward(self, inputs):
        self.calls += 1
        return self.linear(inputs["numbers"])


def heads_of(kind: str, num_tasks: int) -> tuple[MultiTaskModel, Counted]:
    torch.manual_seed(0)
    tasks: list[Task] = [KINDS[kind](f"t{number}") for number in range(num_tasks)]
    encoder = Counted()
    return MultiTaskModel(encoder, HardSharing(num_tasks, width=6), tasks, head_width=5).eval(), encoder


def rows_of(num_rows: int) -> Features:
    numbers = np.random.default_rng(1).normal(size=(num_rows, 4)).astype(np.float32)
    return Features(numbers, np.zeros((num_rows, 0), dtype=np.int32))


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_gets_what_the_whole_model_says_of_its_task(kind):
    model, _ = heads_of(kind, 7)
    features, codes = rows_of(60), np.random.default_rng(2).integers(-1, 7, 60)
    whole = np.stack(list(estimate(model, TableRows(features, {}, {}), np.arange(60)).values()))
    is_new = (codes < 0).reshape(-1, *[1] * (whole.ndim - 2))
    expected = np.where(is_new, whole.mean(axis=0), whole[codes, np.arange(60)])
    np.testing.assert_allclose(own_heads(model, features, codes), expected, rtol=1e-4, atol=1e-6)


def test_the_number_of_passes_does_not_grow_with_the_tasks():
    calls = []
    for num_tasks in (2, 190):
        model, encoder = heads_of("regression", num_tasks)
        own_heads(model, rows_of(ROWS + 50), np.arange(ROWS + 50) % num_tasks)
        calls.append(encoder.calls)
    assert calls == [2, 2]


def test_a_row_is_answered_alike_alone_and_in_any_order():
    model, _ = heads_of("regression", 5)
    features, codes = rows_of(40), np.arange(40) % 6 - 1
    order = np.random.default_rng(3).permutation(40)
    found = own_heads(model, features, codes)
    np.testing.assert_allclose(own_heads(model, features.take(order), codes[order]), found[order], rtol=1e-5)
    np.testing.assert_allclose(own_heads(model, features.take(np.array([7])), codes[[7]]), found[[7]], rtol=1e-5)
    assert own_heads(model, features.take(np.arange(0)), codes[:0]).shape == (0,)
