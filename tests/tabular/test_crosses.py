"""Which columns are crossed: those whose combinations say what they do not say alone."""

from types import SimpleNamespace

import numpy as np
import pytest

from motet.data import Features, TableRows
from motet.tabular import _crosses
from motet.tabular._crosses import Crosses, find_crosses
from motet.tasks import Binary, Multiclass, Regression

ROWS, CODES = 12_000, 6


def problem(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Codes of five columns, and a label of what the first two say together, and what the third says alone."""
    draw = np.random.default_rng(seed)
    codes = draw.integers(0, CODES, (ROWS, 5))
    together = draw.normal(size=(CODES, CODES))[codes[:, 0], codes[:, 1]]
    label = together + codes[:, 2] + 0.5 * draw.normal(size=ROWS)
    return codes, ((label - label.mean()) / label.std())[:, None]


def test_only_columns_that_belong_together_are_crossed():
    codes, labels = problem()
    assert Crosses(codes, [CODES] * 5, labels, np.ones(1)).find() == [(0, 1)]
    noise = np.random.default_rng(1).normal(size=(ROWS, 1))
    assert Crosses(codes, [CODES] * 5, noise, np.ones(1)).find() == []


def test_three_columns_that_say_something_together_are_reached_by_two():
    draw = np.random.default_rng(0)
    codes = draw.integers(0, CODES, (ROWS, 4))
    of_three = draw.normal(size=(CODES, CODES, CODES))[codes[:, 0], codes[:, 1], codes[:, 3]]
    of_two = draw.normal(size=(CODES, CODES))[codes[:, 0], codes[:, 1]]
    label = of_three + of_two + 0.1 * draw.normal(size=ROWS)
    found = Crosses(codes, [CODES] * 4, (label - label.mean())[:, None] / label.std(), np.ones(1)).find()
    assert (0, 1, 3) in found


def test_what_is_known_by_heart_is_worth_nothing():
    codes, labels = problem()
    alone = np.arange(ROWS)  # a column with a code for each row
    found = Crosses(np.column_stack([codes, alone]), [*[CODES] * 5, ROWS], labels, np.ones(1))
    assert found.gain((0, 5)) <= 0.0 < found.gain((0, 1))


def test_crosses_stay_within_their_size(monkeypatch: pytest.MonkeyPatch):
    codes, labels = problem()
    monkeypatch.setattr(_crosses, "MOST_CELLS", CODES * CODES - 1)
    assert Crosses(codes, [CODES] * 5, labels, np.ones(1)).find() == []


def test_labels_of_every_sort_from_training_rows_alone():
    codes, labels = problem()
    numbers = codes[:, :3].astype(np.float32)
    numbers[::50, 2] = np.nan
    features = Features(numbers, codes[:, 3:].astype(np.int32))
    tasks = [Regression("a"), Binary("b", classes=(False, True)), Multiclass("c", classes=("x", "y", "z")),
             Regression("d")]  # fmt: skip
    grade = np.digitize(labels[:, 0], [-0.5, 0.5])
    targets = {"a": labels[:, 0], "b": (labels[:, 0] > 0).astype(np.float32), "c": grade, "d": labels[:, 0]}
    present = {name: np.ones(ROWS, dtype=bool) for name in "abc"} | {"d": np.zeros(ROWS, dtype=bool)}
    present["a"][::3] = False
    targets["a"] = np.where(present["a"], targets["a"], np.nan)
    train = np.arange(ROWS // 2)
    for name in "ab":
        targets[name] = np.where(np.arange(ROWS) < ROWS // 2, targets[name], 1e6)  # not to be looked at
    prepared = SimpleNamespace(tasks=tasks, features=features, rows=TableRows(features, targets, present),
                               split=SimpleNamespace(train=train))  # fmt: skip
    edges = np.tile(np.arange(CODES, dtype=np.float32), (3, 1))
    sizes = [CODES + 2] * 3 + [CODES] * 2
    assert find_crosses(prepared, edges, sizes, seed=0)[0] == (0, 1)  # type: ignore[arg-type]
    prepared.tasks = [tasks[0], tasks[3]]
    assert find_crosses(prepared, edges, sizes, seed=0) == [(0, 1)]  # type: ignore[arg-type]
