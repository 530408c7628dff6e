"""LightGBM's trees as columns: the same predictions, in a fraction of the bytes."""

import zlib

import lightgbm
import numpy as np
import pytest

from motet.tabular._boosting import Boosting
from motet.tabular._tree_columns import TreeColumns
from motet.tasks import Multiclass, Regression

DRAW = np.random.default_rng(0)
ROWS = np.column_stack([DRAW.normal(size=(2000, 3)), DRAW.integers(0, 70, 2000)]).astype(np.float32)
ROWS[::9, 0] = np.nan
LEVEL = np.nan_to_num(ROWS[:, 0]) * ROWS[:, 1] + np.sin(ROWS[:, 3])


def text(targets: np.ndarray, **params: object) -> str:
    asked = {"objective": "regression", "num_leaves": 63, "verbosity": -1, "num_threads": 1} | params
    data = lightgbm.Dataset(ROWS, targets, categorical_feature=[3], params={"verbosity": -1})
    return lightgbm.train(asked, data, 30).model_to_string()


MODELS = {
    "numbers and sets": text(LEVEL),
    "classes": text((LEVEL > 0) + (LEVEL > 1), objective="multiclass", num_class=3),
    "trees of one leaf": text(LEVEL, min_data_in_leaf=1500),
    "many leaves": text(LEVEL, num_leaves=300, min_data_in_leaf=2),
}


def predicted(words: str) -> np.ndarray:
    return lightgbm.Booster(model_str=words).predict(ROWS, num_threads=1)


@pytest.mark.parametrize("name", MODELS)
def test_the_columns_are_a_model_that_predicts_the_same(name):
    columns = TreeColumns.from_text(MODELS[name])
    expected = predicted(MODELS[name])
    np.testing.assert_allclose(predicted(columns.to_text()), expected, rtol=1e-6, atol=1e-6)
    again = TreeColumns.from_bytes(columns.to_bytes())
    assert again.to_text() == columns.to_text()
    assert TreeColumns.from_text(columns.to_text()).to_bytes() == columns.to_bytes()


def test_sets_of_categories_and_single_leaves_are_among_them():
    assert TreeColumns.from_text(MODELS["numbers and sets"]).columns["num_cat"].max() > 0
    assert TreeColumns.from_text(MODELS["trees of one leaf"]).columns["num_leaves"].tolist()[-1] == 1
    assert TreeColumns.from_text(MODELS["many leaves"]).columns["left_child"].max() > 127


def test_they_take_less_than_a_third_of_the_compressed_text():
    whole = MODELS["many leaves"]
    assert len(TreeColumns.from_text(whole).to_bytes()) < len(zlib.compress(whole.encode(), 9)) / 3


def test_a_run_from_before_columns_is_read():
    task = Regression("t", center=0.0, scale=1.0)
    old = zlib.compress("\x00".join([MODELS["numbers and sets"], "2.5"]).encode(), level=6)
    found = Boosting.from_bytes(task, old)
    assert found.texts == [MODELS["numbers and sets"], "2.5"]
    again = Boosting.from_bytes(task, found.to_bytes())
    assert again.texts[1] == "2.5"
    np.testing.assert_allclose(again.estimate(ROWS), found.estimate(ROWS), rtol=1e-6, atol=1e-6)


def test_trained_trees_are_kept_bit_for_bit():
    task = Multiclass("t", classes=("a", "b", "c"))
    trees = Boosting(task, [TreeColumns.from_text(MODELS["classes"]).to_text()])
    again = Boosting.from_bytes(task, trees.to_bytes())
    np.testing.assert_array_equal(again.estimate(ROWS), trees.estimate(ROWS))
