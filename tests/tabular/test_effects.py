"""Feature effects: against formulas worked out by hand, and against rankings known to be right and wrong."""

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from known_model import KnownModel
from small_tables import quick_fit, small_table

from motet import RequestError
from motet.tabular._alike import alike, cramers_v
from motet.tabular._effects import feature_effects
from motet.tabular._removal import check_effects, parts
from motet.tasks import Binary, Regression


def two_targets(num_rows: int = 4000) -> tuple[KnownModel, pl.DataFrame]:
    """`y` is 3a + b exactly and `z` is 10a; `c` is nothing; half of z's labels are missing."""
    draw = np.random.default_rng(0)
    a, b, c = draw.normal(size=(3, num_rows))
    frame = pl.DataFrame({"a": a, "b": b, "c": c, "y": 3 * a + b, "z": 10 * a})
    frame = frame.with_columns(pl.when(pl.Series(draw.random(num_rows) < 0.5)).then("z").alias("z"))
    formulas = {
        "y": lambda rows: (3 * rows["a"] + rows["b"]).to_numpy(),
        "z": lambda rows: (10 * rows["a"]).to_numpy(),
    }
    return KnownModel.of(frame, [Regression("y"), Regression("z")], formulas), frame


def test_a_linear_formula_by_hand():
    """Shuffling x under weight w leaves an error w(x − x′) of deviation √2·w; the model is exact before."""
    model, frame = two_targets()
    found = feature_effects(model, model.labelled(frame), repeats=3, seed=0)
    drops = {(row["target"], row["feature"]): row for row in found.iter_rows(named=True)}
    for key, truth in {("y", "a"): 3 * 2**0.5, ("y", "b"): 2**0.5, ("z", "a"): 10 * 2**0.5}.items():
        assert drops[key]["drop"] == pytest.approx(truth, rel=0.05)
        assert drops[key]["low"] < truth < drops[key]["high"]
    for key in (("y", "c"), ("z", "b"), ("z", "c")):
        assert drops[key]["drop"] == drops[key]["low"] == drops[key]["high"] == 0.0
    assert found["feature"].to_list()[:2] == ["a", "b"]
    assert drops["y", "a"]["share"] == pytest.approx(0.75, abs=0.02)
    assert drops["z", "a"]["share"] == 1.0
    assert found["metric"].unique().to_list() == ["rmse"]


def test_a_metric_where_higher_is_better_has_positive_drops_too():
    draw = np.random.default_rng(1)
    x = draw.normal(size=2000)
    frame = pl.DataFrame({"x": x, "noise": draw.normal(size=2000), "yes": x > 0})
    model = KnownModel.of(frame, [Binary("yes")], {"yes": lambda rows: 1 / (1 + np.exp(-rows["x"].to_numpy()))})
    found = feature_effects(model, model.labelled(frame), repeats=5, seed=0)
    assert found["feature"].to_list() == ["x", "noise"]
    assert found["drop"][0] == pytest.approx(0.5, abs=0.03)  # from 1 to what a coin scores
    assert found["drop"][1] == 0.0


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    model, frame = two_targets(16_000)
    hits = 0
    for start in range(0, 16_000, 400):
        labelled = model.labelled(frame[start : start + 400])
        found = feature_effects(model, labelled, repeats=5, seed=start).filter(target="y", feature="a")
        hits += found["low"][0] <= 3 * 2**0.5 <= found["high"][0]
    assert 32 <= hits <= 40


def test_what_says_the_same_moves_together():
    draw = np.random.default_rng(2)
    num = draw.normal(size=800)
    town = draw.integers(0, 6, 800)
    frame = pl.DataFrame({
        "size": num, "area": np.exp(num), "other": draw.normal(size=800), "town": [f"t{code}" for code in town],
        "zip": [f"z{(code + 3) % 6}" for code in town], "kind": [f"k{code}" for code in draw.integers(0, 6, 800)],
        "day": [date(2020, 1, 1) + timedelta(days=int(days)) for days in draw.integers(0, 900, 800)], "y": num,
    })  # fmt: skip
    half = lambda rows: (rows["size"] + rows["area"].log()).to_numpy() / 2  # noqa: E731
    model = KnownModel.of(frame, [Regression("y")], {"y": half})
    groups = alike(model.encoder, model.encoder.transform(frame))
    assert {frozenset(group) for group in groups} == {
        frozenset(names) for names in (["size", "area"], ["other"], ["town", "zip"], ["kind"], ["day"])
    }
    found = feature_effects(model, model.labelled(frame), repeats=3, seed=0)
    assert found["feature"][0] == "size + area"
    assert found["drop"][0] == pytest.approx(2**0.5, rel=0.1)  # each alone would show half of it


def test_cramers_v_by_hand():
    same, other = np.repeat([0, 1], 50), np.tile([0, 1], 50)
    assert cramers_v(same, 1 - same) == pytest.approx(1.0, abs=0.01)
    assert cramers_v(same, other) == 0.0
    assert cramers_v(same, np.zeros(100, dtype=int)) == 0.0
    every_row_its_own = np.arange(100)
    assert cramers_v(every_row_its_own, same) < 0.9  # likeness by having a level for each row is no likeness


def test_shuffling_is_the_same_for_one_seed_and_leaves_the_table_alone():
    model, frame = two_targets(300)
    before = frame.clone()
    first, again, other = (feature_effects(model, model.labelled(frame), repeats=2, seed=seed) for seed in (1, 1, 2))
    assert first.equals(again)
    assert not first.equals(other)
    assert frame.equals(before)


def test_few_rows_have_no_interval_and_groups_widen_it():
    model, frame = two_targets(400)
    assert feature_effects(model, model.labelled(frame[:15]), repeats=2, seed=0)["low"].is_null().all()
    signs = frame.with_columns(shop=pl.Series(np.arange(400) // 20))  # twenty rows each that say the same
    copies = signs.select(pl.all().first().over("shop")).sample(fraction=1.0, shuffle=True, seed=0)
    alone = feature_effects(model, model.labelled(copies), repeats=5, seed=0).filter(target="y", feature="a")
    groups = feature_effects(model, model.labelled(copies, "shop"), repeats=5, seed=0).filter(target="y", feature="a")
    width = [(found["high"] - found["low"])[0] for found in (alone, groups)]
    assert width[1] > 1.5 * width[0]


def made_up(*features: str, target: str = "y") -> pl.DataFrame:
    """A ranking, the first feature the best."""
    return pl.DataFrame({
        "target": [target] * len(features), "drop": np.linspace(1, 0, len(features)),
        "columns": [[feature] for feature in features],
    })  # fmt: skip


def test_a_right_ranking_is_supported_and_a_reversed_one_contradicted():
    model, frame = two_targets(1500)
    labelled = model.labelled(frame)
    right, wrong = (
        check_effects(model.encoder, labelled, made_up(*order), seed=0, threads=1).row(0, named=True)
        for order in (("a", "b", "c"), ("c", "b", "a"))
    )
    assert (right["verdict"], right["most"], right["least"]) == ("supported", ["a"], ["c"])
    assert right["without_most"] > 2.5  # what is left of 3a + b without a has deviation 3
    assert right["without_least"] == pytest.approx(right["all"], abs=0.1)
    assert right["low"] <= right["difference"] <= right["high"]
    assert right["difference"] == pytest.approx(right["without_most"] - right["without_least"])
    assert wrong["verdict"] == "contradicted"
    assert wrong["difference"] == pytest.approx(-right["difference"])


def test_a_ranking_of_features_that_say_nothing_is_not_supported():
    draw = np.random.default_rng(3)
    frame = pl.DataFrame({name: draw.normal(size=800) for name in ("a", "b", "c", "d", "y")})
    model = KnownModel.of(frame, [Regression("y")], {})
    found = check_effects(model.encoder, model.labelled(frame), made_up("a", "b", "c", "d"), seed=0, threads=1)
    assert found["verdict"].to_list() == ["not supported"]


def test_too_little_to_check_is_said():
    model, frame = two_targets(300)
    few = check_effects(model.encoder, model.labelled(frame[:90]), made_up("a", "b", "c"), seed=0, threads=1)
    one = check_effects(model.encoder, model.labelled(frame), made_up("a"), seed=0, threads=1)
    assert few.filter(target="y")["verdict"].to_list() == ["too few rows"]
    assert one.filter(target="y")["verdict"].to_list() == ["too few features"]
    assert few["difference"].is_null().all()


def test_parts_are_apart_and_keep_groups_whole():
    places = np.arange(3, 1003)
    found = parts(places, None, seed=0)
    assert [len(part) for part in found] == [500, 150, 350]
    assert np.array_equal(np.sort(np.concatenate(found)), places)
    groups = np.arange(1003) // 7
    homes = [set(groups[part]) for part in parts(places, groups, seed=0)]
    assert sum(map(len, homes)) == len(set.union(*homes)) == len(np.unique(groups[places]))


@pytest.fixture(scope="module")
def fitted():
    return quick_fit(small_table())


def test_a_fitted_model_needs_what_the_table_is_made_of(fitted):
    fresh = small_table(600, seed=1)
    found = fitted.effects(fresh, repeats=2)
    assert found.group_by("target").len()["len"].to_list() == [5, 5, 5]
    for target in ("amount", "bought", "grade"):
        assert found.filter(target=target)["feature"].to_list()[0] in ("n0", "town")
        assert found.filter(target=target)["low"][0] > 0
    checks = fitted.check_effects(fresh, found.filter(target="amount"))
    assert checks["verdict"].to_list() == ["supported"]
    assert checks["rows"][0] == fresh["amount"].count()


def test_fewer_rows_and_one_target_can_be_asked_for(fitted):
    found = fitted.effects(small_table(400, seed=2), tasks=["bought"], repeats=1, max_rows=100)
    assert found["target"].unique().to_list() == ["bought"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"repeats": 0}, "repeats is 0; a number between 1"),
        ({"max_rows": 0}, "max_rows is 0; a number between 1"),
        ({"seed": -1}, "seed is -1"),
        ({"tasks": ["amuont"]}, "Did you mean 'amount'"),
    ],
)
def test_what_cannot_be_is_refused(fitted, asked, message):
    with pytest.raises(RequestError, match=message):
        fitted.effects(small_table(50), **asked)


def test_a_table_without_labels_or_features_is_refused(fitted):
    with pytest.raises(RequestError, match=r"no label column of amount, bought, grade.*Use predict"):
        fitted.effects(small_table(50).drop("amount", "bought", "grade"))
    with pytest.raises(RequestError, match="lacks the column 'n0'"):
        fitted.effects(small_table(50).drop("n0"))
