"""Rows looked up by codes: the codes by hand, the crosses, and what training leaves out."""

import numpy as np
import pytest
import torch

from motet import RequestError
from motet.models import LookupEncoder, bin_edges, number_sizes

INF = float("inf")
EDGES = torch.tensor([[0.0, 1.0, 4.0], [2.0, 3.0, INF]])
SIZES = (5, 4)


def encoder(crosses: tuple[tuple[int, ...], ...] = (), **settings: float) -> LookupEncoder:
    torch.manual_seed(0)
    made = LookupEncoder(EDGES, SIZES, [3], crosses, width=8, dim=4, cross_dim=2, **settings)
    if made.crosses is not None:
        torch.nn.init.normal_(made.crosses.weight)
    return made


def rows() -> dict[str, torch.Tensor]:
    numbers = torch.tensor([[-9.0, 2.5], [0.0, 3.0], [torch.nan, torch.nan], [4.0, 1e30], [0.99, -1e30]])
    return {"numbers": numbers, "categories": torch.tensor([[0], [1], [2], [1], [0]])}


def test_a_numbers_code_is_how_many_edges_it_has_reached():
    assert number_sizes(EDGES) == SIZES
    found = encoder().bins(rows()["numbers"])
    assert found.tolist() == [[1, 2], [2, 3], [0, 0], [4, 3], [2, 1]]


def test_codes_that_come_along_are_the_same_as_those_it_finds():
    made = encoder(((0, 2),)).eval()
    given = rows() | {"bins": made.bins(rows()["numbers"])}
    assert torch.equal(made(rows()), made(given))
    other = rows() | {"bins": torch.zeros(5, 2, dtype=torch.long)}
    assert not torch.equal(made(rows()), made(other))


def test_each_combination_has_a_vector_of_its_own():
    made = encoder(((0, 2), (0, 1, 2))).eval()
    assert made.crosses is not None
    assert made.crosses.num_embeddings == 5 * 3 + 5 * 4 * 3
    before = made(rows())
    # Row 1 has the codes 2, 3 and 1: the first cross counts columns from the left, 2 + 5 · 1.
    with torch.no_grad():
        made.crosses.weight[2 + 5 * 1] += 1.0
    assert (before != made(rows())).any(dim=1).tolist() == [False, True, False, False, False]
    with torch.no_grad():
        made.crosses.weight[15 + 4 + 5 * 3 + 20 * 1] += 1.0  # and row 3 the codes 4, 3 and 1 in the second
    assert (before != made(rows())).any(dim=1).tolist() == [False, True, False, True, False]


def test_crosses_start_at_nothing_and_are_left_out_in_training_alone():
    torch.manual_seed(0)
    fresh = LookupEncoder(EDGES, SIZES, [3], ((0, 1),), width=8)
    assert fresh.crosses is not None
    assert not fresh.crosses.weight.any()
    made = encoder(((0, 2), (1, 2)), cross_dropout=0.5)
    torch.manual_seed(1)
    assert not torch.equal(made(rows()), made(rows()))
    made.eval()
    assert torch.equal(made(rows()), made(rows()))


def test_a_row_alone_and_in_a_batch_are_the_same_and_no_number_is_too_large():
    made = encoder(((0, 2),)).eval()
    together = made(rows())
    assert torch.isfinite(together).all()
    alone = [made({name: part[[place]] for name, part in rows().items()}) for place in range(5)]
    torch.testing.assert_close(together, torch.cat(alone))


def test_a_column_without_a_value_and_tables_of_one_sort():
    empty = bin_edges(np.full((9, 1), np.nan, dtype=np.float32), num_bins=3)
    made = LookupEncoder(empty, number_sizes(empty), [])
    assert torch.isfinite(made({"numbers": torch.tensor([[torch.nan], [7.0]])})).all()
    only = LookupEncoder(torch.zeros(0, 3), (), [4], width=8)
    codes = torch.tensor([[3], [0]])
    assert only({"categories": codes}).shape == (2, 8)
    with pytest.raises(RequestError, match="Give a role to a column"):
        LookupEncoder(torch.zeros(0, 3), (), [])
