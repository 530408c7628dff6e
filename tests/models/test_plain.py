"""Rows as a linear model reads them, and heads that do not bend."""

import pytest
import torch

from motet import RequestError
from motet.models import HardSharing, MultiTaskModel, PlainEncoder
from motet.tasks import Multiclass, Regression


def encoder() -> PlainEncoder:
    made = PlainEncoder(2, [3, 2])
    made.standardise(torch.tensor([[1.0, 5.0], [3.0, 5.0], [torch.nan, 5.0]]))
    return made


def test_a_row_is_its_numbers_its_gaps_and_its_levels():
    rows = {"numbers": torch.tensor([[4.0, 7.0], [torch.nan, 5.0]]), "categories": torch.tensor([[2, 0], [0, 1]])}
    made = encoder()
    assert made.width == 9
    # The mean is 2 and the standard deviation 1; a column that never changes says nothing.
    assert made(rows).tolist() == [[2, 0, 0, 0, 0, 0, 1, 1, 0], [0, 0, 1, 0, 1, 0, 0, 0, 1]]


def test_products_follow_at_the_end():
    made = PlainEncoder(2, [], products=True)
    assert made.width == 7
    found = made({"numbers": torch.tensor([[2.0, 3.0], [torch.nan, 3.0]])})
    assert found.tolist() == [[2, 3, 0, 0, 4, 6, 9], [0, 3, 1, 0, 0, 0, 9]]


def test_a_number_far_outside_is_cut_off():
    rows = {"numbers": torch.tensor([[1e30, 0.0], [-1e30, 0.0]]), "categories": torch.zeros(2, 2, dtype=torch.long)}
    assert encoder()(rows)[:, 0].tolist() == [10, -10]


def test_a_table_without_a_feature_is_refused():
    with pytest.raises(RequestError, match="A model needs at least one feature"):
        PlainEncoder(0, [])


def test_heads_without_a_hidden_layer_are_linear():
    torch.manual_seed(0)
    tasks = [Regression("a", center=0.0, scale=1.0), Multiclass("b", classes=("x", "y", "z"))]
    model = MultiTaskModel(torch.nn.Identity(), HardSharing(2, width=4), tasks, head_width=0)
    one, other = torch.randn(2, 5, 4)
    for name in ("a", "b"):
        at = [model(rows)[name] for rows in (one, other, one + other, torch.zeros(5, 4))]
        torch.testing.assert_close(at[0] + at[1], at[2] + at[3])
        assert at[0].shape == (5, 1 if name == "a" else 3)
    assert torch.equal(model(one, tasks=["b"])["b"], model(one)["b"])
