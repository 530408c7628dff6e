"""Shapley values: against formulas by hand, against the trees' own scores, and under the check of rankings."""

import numpy as np
import polars as pl
import pytest
from known_model import KnownModel

from motet import RequestError, TabularModel
from motet.data import FeatureEncoder, encode_targets, fit_tasks, infer_schema
from motet.tabular import _attributions
from motet.tabular._attributions import drawn, mean_attributions, shapley
from motet.tabular._boosting import Boosting, BoostingRows
from motet.tabular._prepared import join
from motet.tabular._removal import check_effects
from motet.tabular._served import Answer, Served
from motet.tasks import Binary, Calibration, Multiclass, Regression, Task
from motet.train import Clock


def formula(num_rows: int = 3000) -> tuple[KnownModel, pl.DataFrame]:
    """`y` is 3a + b, `z` is ab; `c` is nothing."""
    a, b, c = np.random.default_rng(0).normal(size=(3, num_rows))
    frame = pl.DataFrame({"a": a, "b": b, "c": c, "y": 3 * a + b, "z": a * b})
    formulas = {
        "y": lambda rows: (3 * rows["a"] + rows["b"]).to_numpy(), "z": lambda rows: (rows["a"] * rows["b"]).to_numpy(),
    }  # fmt: skip
    return KnownModel.of(frame, [Regression("y"), Regression("z")], formulas), frame


def test_a_linear_formula_by_hand():
    """A weight w times a feature is worth w(x − mean of four others'): of variance w²(1 + ¼)."""
    model, frame = formula()
    found = shapley(model, frame, ["y"], seed=0)["y"]
    assert found.features == (("a",), ("b",), ("c",))
    np.testing.assert_allclose(found.values.std(axis=0)[:, 0], [3 * 1.25**0.5, 1.25**0.5, 0.0], rtol=0.05)
    assert np.corrcoef(found.values[:, 0, 0], frame["a"])[0, 1] == pytest.approx(0.8**0.5, abs=0.02)
    table = mean_attributions({"y": found})
    assert table["feature"].to_list() == ["a", "b", "c"]
    assert table["mean_shap"][0] == pytest.approx(3 * (1.25 * 2 / np.pi) ** 0.5, rel=0.05)
    assert table["share"].to_list() == pytest.approx([0.75, 0.25, 0.0], abs=0.02)


def test_what_two_features_do_together_is_shared_equally():
    """Of ab each gets ab/2, where others' means are zero."""
    model, frame = formula()
    found = shapley(model, frame, ["z"], seed=0)["z"]
    both = (frame["a"] * frame["b"]).to_numpy()
    for place in (0, 1):
        assert found.values[:, place, 0] @ both / (both @ both) == pytest.approx(0.5, abs=0.05)


def test_sampled_values_add_up_to_the_answer_in_each_row():
    model, frame = formula(50)
    found = shapley(model, frame, ["y", "z"], seed=1)
    for name, part in found.items():
        np.testing.assert_allclose(part.base + part.values.sum(axis=1), part.answer, atol=1e-12)
        np.testing.assert_allclose(part.answer[:, 0], model.estimate(frame)[name])
        assert (part.unit, part.method) == ("estimate", "sampled")
    again = shapley(model, frame, ["z"], seed=1)["z"]
    np.testing.assert_array_equal(again.values, found["z"].values)


def boosted(task: Task, num_rows: int = 500) -> tuple[Served, pl.DataFrame]:
    """A target that one LightGBM serves; `a` and `town` say much, `c` nothing."""
    draw = np.random.default_rng(2)
    a, c = draw.normal(size=(2, num_rows))
    town = draw.integers(0, 3, num_rows)
    signal = 2 * a + town
    labels = {"regression": signal, "binary": signal > 1, "multiclass": np.digitize(signal, [0, 2])}[task.kind]
    frame = pl.DataFrame({"a": a, "c": c, "town": np.array(["x", "y", "z"])[town], "t": labels})
    rows = np.arange(num_rows)
    (fitted,) = fit_tasks(frame, [task], rows)
    encoder = FeatureEncoder.fit(frame, infer_schema(frame, [task], rows=rows), rows)
    matrix, targets = join(encoder.transform(frame)), encode_targets(frame, [fitted])[0]["t"]
    parts = [BoostingRows(matrix[half], targets[half], 1) for half in (rows[:350], rows[350:])]
    trees, _ = Boosting.fit(fitted, *parts, seed=0, clock=Clock(None), threads=1)
    answer = Answer(fitted, "own_lightgbm", {"own_lightgbm": 1.0}, Calibration(), None)
    return Served(encoder, {"t": answer}, (), {"t": trees}), frame


@pytest.mark.parametrize("task", [Regression("t"), Binary("t"), Multiclass("t")])
def test_trees_values_add_up_to_their_scores_whose_link_is_the_estimate(task):
    served, frame = boosted(task)
    found = shapley(served, frame, ["t"], seed=0)["t"]
    assert (found.unit, found.method) == ("score", "tree")
    np.testing.assert_allclose(found.base + found.values.sum(axis=1), found.answer, atol=1e-5)
    estimates, score = served.estimate(frame)["t"], found.answer
    if task.kind == "multiclass":
        powers = np.exp(score)
        np.testing.assert_allclose(powers / powers.sum(axis=1, keepdims=True), estimates, rtol=1e-5)
    else:
        linked = 1 / (1 + np.exp(-score[:, 0])) if task.kind == "binary" else score[:, 0]
        np.testing.assert_allclose(linked, estimates, rtol=1e-5)
    table = mean_attributions({"t": found})
    assert table["feature"].to_list() == ["a", "town", "c"]


def test_sampling_agrees_with_lightgbm_where_features_add_up(monkeypatch):
    served, frame = boosted(Regression("t"))
    exact = shapley(served, frame, ["t"], seed=0)["t"]
    monkeypatch.setattr(_attributions, "_is_one_tree_model", lambda *_: False)
    sampled = shapley(served, frame, ["t"], seed=0)["t"]
    assert sampled.method == "sampled"
    for place in (0, 2):  # `a` and `town`; what noise moves is noise
        assert np.corrcoef(exact.values[:, place, 0], sampled.values[:, place, 0])[0, 1] > 0.85
    for one, other in zip(*(np.abs(part.values).mean(axis=(0, 2)) for part in (exact, sampled)), strict=True):
        assert one == pytest.approx(other, rel=0.25, abs=0.05)


def test_their_ranking_is_checked_as_any_other():
    model, frame = formula(1500)
    table = mean_attributions(shapley(model, frame.head(200), ["y"], seed=0))
    labelled = model.labelled(frame)
    labelled = type(labelled)(frame, {"y": labelled.tasks["y"]}, labelled.targets, labelled.present)
    for ranking, verdict in ((table, "supported"), (table.reverse(), "contradicted")):
        found = check_effects(model.encoder, labelled, ranking, seed=0, threads=1)
        assert found["verdict"].to_list() == [verdict]


def test_a_long_table_is_drawn_from_and_a_model_that_is_not_fitted_says_so():
    frame = pl.DataFrame({"x": np.arange(100)})
    assert drawn(frame, 200, 0).equals(frame)
    part = drawn(frame, 10, 0)["x"]
    assert len(set(part)) == 10
    assert part.is_sorted()
    with pytest.raises(RequestError, match="not fitted"):
        TabularModel(["t"]).attributions(frame)
    with pytest.raises(RequestError, match=r"max_rows is 1; a number between 2"):
        TabularModel(["t"]).attributions(frame, max_rows=1)
