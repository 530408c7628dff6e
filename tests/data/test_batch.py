"""Batches of rows."""

import numpy as np
import torch

from motet.data import Batch, Features, TableRows

N = 23


def rows():
    numbers = np.arange(N * 2, dtype=np.float32).reshape(N, 2)
    numbers[3, 1] = np.nan
    categories = np.arange(N * 3, dtype=np.int32).reshape(N, 3)
    targets = {"price": np.arange(N, dtype=np.float32), "tags": np.ones((N, 4), dtype=np.float32)}
    present = {"price": np.arange(N) % 2 == 0, "tags": np.zeros(N, dtype=bool)}
    return TableRows(Features(numbers, categories), targets, present)


def test_take_gives_the_rows_asked_for():
    batch = rows().take(np.array([4, 3]))
    assert isinstance(batch, Batch)
    assert len(batch) == 2
    assert batch.inputs["numbers"].tolist()[0] == [8.0, 9.0]
    assert torch.isnan(batch.inputs["numbers"][1, 1])
    assert batch.inputs["categories"].dtype == torch.int64
    assert batch.inputs["categories"].tolist() == [[12, 13, 14], [9, 10, 11]]
    assert batch.targets["price"].tolist() == [4.0, 3.0]
    assert batch.targets["tags"].shape == (2, 4)
    assert batch.present["price"].tolist() == [True, False]
    assert batch.present["tags"].dtype == torch.bool


def test_batches_cover_every_row_once():
    table = rows()
    assert len(table) == N
    chosen = np.arange(1, N)
    plain = list(table.batches(chosen, 7))
    assert [len(batch) for batch in plain] == [7, 7, 7, 1]
    assert torch.cat([batch.targets["price"] for batch in plain]).tolist() == chosen.tolist()


def test_shuffling_follows_the_generator():
    def order(seed):
        batches = rows().batches(np.arange(N), 5, generator=torch.Generator().manual_seed(seed))
        return torch.cat([batch.targets["price"] for batch in batches]).tolist()

    assert order(0) == order(0) != order(1)
    assert sorted(order(0)) == list(range(N)) != order(0)


def test_numbers_are_held_once_and_batches_move():
    numbers = np.zeros((N, 2), dtype=np.float32)
    table = TableRows(Features(numbers, np.zeros((N, 0), dtype=np.int32)), {}, {})
    numbers[0, 0] = 5
    assert table.take(np.array([0])).inputs["numbers"][0, 0] == 5
    moved = rows().take(np.array([1])).to("meta")
    assert moved.inputs["numbers"].device.type == moved.present["price"].device.type == "meta"
