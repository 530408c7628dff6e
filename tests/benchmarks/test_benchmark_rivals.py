import numpy as np
import polars as pl
import pytest

for needed in ("xgboost", "catboost", "sklearn", "lightgbm"):
    pytest.importorskip(needed)

from _datasets import DATA, DATASETS, Dataset, _random_split  # noqa: E402
from _encoding import Encoded  # noqa: E402
from _rivals import RIVALS, Clock  # noqa: E402
from _scores import score  # noqa: E402

SIZES = {
    "flights": (336_776, 23), "census": (299_285, 38), "rf1": (9_125, 64), "yeast": (2_417, 103),
    "bikeshare": (8_645, 12),
    "birds": (645, 260), "clothing": (23_486, 3), "tasks_abalone": (4_177, 8), "tasks_avila": (20_867, 10),
    "tasks_bank": (45_211, 32), "tasks_computer": (3_800, 14), "synth_4": (3_000, 16), "synth_16": (3_000, 16),
    "synth_64": (3_000, 16),
}  # fmt: skip


@pytest.fixture(scope="module")
def dataset():
    random = np.random.default_rng(0)
    rows = 600
    x, letter = random.normal(size=rows), random.choice(list("abc"), rows)
    signal = x + (letter == "a")
    frame = pl.DataFrame({"x": x, "noise": random.normal(size=rows), "letter": letter})
    frame = frame.with_columns(
        number=pl.Series(10 + signal),
        other=pl.Series(signal**2),
        flag=pl.Series(signal > 0),
        level=pl.Series(np.digitize(signal, [-0.5, 1]).astype(str)),
        visits=pl.Series(random.poisson(np.exp(signal / 2))),
        split=_random_split(rows),
    )
    # Half of `other` is unknown, and a feature has holes.
    hole = pl.Series(random.random(rows) < 0.5)
    frame = frame.with_columns(pl.when(hole).then(None).otherwise("other").alias("other"))
    frame = frame.with_columns(pl.when(pl.col("noise") > 1).then(None).otherwise("noise").alias("noise"))
    kinds = {"number": "regression", "other": "regression", "flag": "binary", "level": "multiclass", "visits": "count"}
    return Dataset("small", frame, tuple(kinds.items()))


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr("_rivals.ROUNDS", 40)
    monkeypatch.setattr("_network.EPOCHS", 30)


@pytest.mark.parametrize("name", [name for name in RIVALS if name != "lightgbm_per_task"])  # which needs a task column
def test_every_rival_learns_every_kind_of_target(name, dataset, short):
    encoded = Encoded(dataset)
    fitted = RIVALS[name](encoded, 0, 1, 60.0)
    test = dataset.part("test")
    found = fitted.predict(encoded.matrix(test), 1)
    assert found["level"].shape == (len(test), 3)
    for target, kind in dataset.targets:
        metrics, _ = score(kind, encoded.labels(test, target), found[target])
        if kind in ("regression", "count"):
            assert metrics["r2"] > (0.1 if kind == "count" else 0.3), target
        else:
            assert metrics["roc_auc"] > 0.9, target
    assert len(fitted.artefact) > 1000
    one = fitted.predict(encoded.matrix(test[:1]), 1)
    assert one["number"] == pytest.approx(found["number"][:1], rel=1e-4)


def test_trees_of_each_task_answer_its_rows_and_the_pooled_ones_a_new_task(short):
    random = np.random.default_rng(0)
    x, shop = random.normal(size=900), random.choice(["a", "b"], 900)
    frame = pl.DataFrame({"x": x, "shop": shop, "y": np.where(shop == "a", x, -x)})
    frame = frame.with_columns(
        split=pl.Series(random.permutation(["train"] * 500 + ["validation"] * 200 + ["test"] * 200))
    )
    encoded = Encoded(Dataset("tiny", frame, (("y", "regression"),), "shop"))
    fitted = RIVALS["lightgbm_per_task"](encoded, 0, 1, 60.0)
    assert fitted.notes[0] == "2 tasks have trees of their own"
    test = frame.filter(pl.col("split") == "test")
    found = fitted.predict(encoded.matrix(test), 1)["y"]
    assert score("regression", encoded.labels(test, "y"), found)[0]["r2"] > 0.3
    new = fitted.predict(encoded.matrix(test.with_columns(shop=pl.lit("c"))), 1)["y"]
    assert np.isfinite(new).all()


def test_xgboost_says_which_rows_it_dropped(dataset, short):
    missing = dataset.part("train")["other"].null_count()
    notes = RIVALS["xgboost"](Encoded(dataset), 0, 1, 60.0).notes
    assert f"dropped {missing} training rows that lack a label of number, other" in notes


def test_a_matrix_has_numbers_first_and_nan_for_what_is_missing_or_new():
    frame = pl.DataFrame({"word": ["b", "a", "c", None], "n": [1, 2, 3, None], "y": [1.0, 2.0, 3.0, None]})
    frame = frame.with_columns(split=pl.Series(["train", "train", "test", "test"]))
    encoded = Encoded(Dataset("tiny", frame, (("y", "regression"),)))
    expected = np.array([[1, 1], [2, 0], [3, np.nan], [np.nan, np.nan]], dtype=np.float32)
    assert np.array_equal(encoded.matrix(frame), expected, equal_nan=True)
    assert encoded.category_places == [1]
    assert np.array_equal(encoded.labels(frame, "y"), [1, 2, 3, np.nan], equal_nan=True)


def test_a_clock_names_what_it_stopped():
    clock = Clock(-1)
    assert clock.is_over("price")
    assert clock.notes == ["stopped by the time limit: price"]
    assert not Clock(60).is_over("price")


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.skipif(not DATA.exists(), reason="the tables are not there")
def test_a_data_set_is_whole(name):
    dataset = DATASETS[name](DATA)
    assert (dataset.frame.height, len(dataset.features)) == SIZES[name]
    assert set(dataset.frame["split"].unique()) == {"train", "validation", "test"}
    train = dataset.part("train")
    assert dataset.frame["split"].equals(DATASETS[name](DATA).frame["split"])
    for target, _ in dataset.targets:
        assert train[target].n_unique() > 1
        assert target not in dataset.features


@pytest.mark.skipif(not DATA.exists(), reason="the tables are not there")
def test_no_column_that_is_made_of_a_target_is_a_feature():
    assert "bikers" not in DATASETS["bikeshare"](DATA).features
    assert "marital_stat" not in DATASETS["census"](DATA).features
    assert DATASETS["census"](DATA).part("test").height == 99_762
    assert DATASETS["rf1"](DATA).part("test").height == 5_017
