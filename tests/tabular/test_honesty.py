"""What a run says about itself is true: unpredictable targets, leaks, missing labels, and the form of the proof."""

import json
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from small_tables import QUICK, TARGETS, quick_fit, small_table

from motet import Binary, Multiclass, Regression, TabularModel
from motet.tabular._prepared import prepare

FLIGHTS = Path(__file__).parents[3] / "shared" / "data" / "flights_six_targets.parquet"
# With a handful of labelled rows there is nothing to resample: these stay open, as docs/run-directory.md allows.
OPEN = tuple(
    f".tasks.rare.{key}"
    for key in (
        "guard.gain_percent", "guard.ci95", "gain_percent", "ci95", "skill_ci95", "predictable",
        "distilled.against_served.", "distilled.against_own.",
    )
)  # fmt: skip
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def honest() -> TabularModel:
    """One fit of a table on which everything can go wrong at once: each test looks at its own target of it."""
    table = small_table()
    draw = np.random.default_rng(3)
    shuffled = table["amount"].drop_nulls().sample(len(table), with_replacement=True, shuffle=True, seed=1)
    rare = pl.Series(draw.random(len(table)) < 0.01)
    table = table.with_columns(
        shuffled=shuffled,
        coin=pl.Series(draw.random(len(table)) < 0.5),
        spoken=pl.col("bought"),
        rare=pl.when(rare).then(pl.col("n0") > 0),
        told=pl.col("grade"),
        late=pl.col("amount") * 2 + 1,
    )
    targets = [*TARGETS, "shuffled:regression", "coin:binary", "spoken:binary", "rare:binary"]
    return TabularModel(targets, settings=QUICK).fit(table)


def holds(ends: list[float | None], value: float) -> bool:
    low, high = ends
    return low is not None and high is not None and low <= value <= high


@pytest.mark.parametrize("name", ["shuffled", "coin"])
def test_shuffled_labels_gain_nothing_and_the_report_says_so(honest, name):
    found = honest.metrics_["tasks"][name]
    assert not found["predictable"]
    assert found["skill_ci95"][0] < 0.1  # one draw in forty lies just above zero; choose rows settle it
    assert found["gain_percent"] == 0 if found["served_by"] != "shared" else holds(found["ci95"], 0.0)
    assert any(f"'{name}' is not predictable" in note for note in honest.run_["notes"])


@pytest.mark.parametrize("name", ["amount", "bought", "grade", "spoken"])
def test_what_can_be_predicted_is_not_called_unpredictable(honest, name):
    found = honest.metrics_["tasks"][name]
    assert found["predictable"]
    assert found["skill_ci95"][0] > 0
    assert not any(f"'{name}' is not predictable" in note for note in honest.run_["notes"])


def test_a_target_under_two_names_gets_one_answer(honest):
    first, second = (honest.metrics_["tasks"][name] for name in ("bought", "spoken"))
    assert first["single_task"] == pytest.approx(second["single_task"], abs=0.02)
    assert first["motet"] == pytest.approx(second["motet"], abs=0.02)
    assert holds(second["skill_ci95"], np.mean(first["skill_ci95"]))
    assert holds(first["skill_ci95"], np.mean(second["skill_ci95"]))


def test_two_tasks_may_read_the_same_column():
    tasks = [Regression("y", columns=("amount",)), Regression("y2", columns=("amount",)), Binary("bought")]
    model = TabularModel(tasks, settings=QUICK).fit(small_table(600))
    first, second = (model.metrics_["tasks"][name] for name in ("y", "y2"))
    trees = [found["candidates"]["own_lightgbm"]["score"] for found in (first, second)]
    assert trees[0] == trees[1]
    assert holds(first["skill_ci95"], np.mean(second["skill_ci95"]))
    assert model.predict(small_table(50, seed=9)).columns == ["y", "y2", "bought"]


def test_a_copy_of_a_target_is_named_as_a_leak(honest):
    named = {(leak["feature"], leak["task"]) for leak in honest.run_["leaks"]}
    assert named >= {("told", "grade"), ("late", "amount")}
    assert not {feature for feature, _ in named} & {"n0", "n1", "n2", "n3", "town"}
    for feature, task in (("told", "grade"), ("late", "amount")):
        assert any(f"'{feature}' alone predicts '{task}'" in note for note in honest.run_["notes"])
        used = {column["name"]: column["used"] for column in honest.run_["schema"]}
        assert used[feature], "a suspect is named, not silently dropped"


def test_a_target_is_never_a_feature(honest):
    roles = {column["name"]: (column["role"], column["used"]) for column in honest.run_["schema"]}
    assert all(roles[name] == ("target", False) for name in honest.metrics_["tasks"])


def test_labels_in_one_row_of_a_hundred_do_no_harm(honest):
    found = honest.metrics_["tasks"]["rare"]
    labelled = honest.metrics_["rows"]["labelled"]["rare"]
    assert 0 < labelled["train"] < 20
    assert labelled["test"] >= 1
    assert found["served_by"] in {"shared", "own_network", "own_lightgbm"}
    assert honest.metrics_["rows"]["train"] == pytest.approx(0.64 * 1500, abs=3)
    chances = honest.predict_proba(small_table(40, seed=2).with_columns(told=pl.lit("low"), late=50.0), task="rare")
    assert chances.to_numpy().min() >= 0
    assert np.isfinite(chances.to_numpy()).all()


def walk(value, path=""):
    """Every leaf of a JSON document with its path."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from walk(item, f"{path}.{key}")
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from walk(item, f"{path}[{place}]")
    else:
        yield path, value


def test_no_number_is_nan_and_nulls_are_where_they_may_be(honest):
    json.dumps(honest.metrics_, allow_nan=False)
    json.dumps(honest.run_, allow_nan=False)
    for path, value in walk(honest.metrics_):
        if isinstance(value, float):
            assert math.isfinite(value), path
        assert value is not None or path.startswith(OPEN), path


def test_rows_of_the_log_are_json_without_nan(honest):
    assert honest.log_
    for record in honest.log_:
        assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_the_proof_has_the_keys_that_the_docs_promise(honest):
    """Names are read off `docs/run-directory.md`, so that the file and the text cannot part."""
    text = (ROOT / "docs" / "run-directory.md").read_text(encoding="utf-8")
    example = text.split("## `metrics.json`")[1].split("`gain_percent` is")[0]
    top = {"format", "tasks", "artefact", "delta_m_percent", "rows", "seconds", "compute"}
    taught = {"distilled"} & set(honest.metrics_["seconds"])  # only where there was something to make smaller
    always = {
        "kind", "metric", "higher_is_better", "unit", "constant", "single_task", "motet", "gain_percent", "ci95",
        "served_by", "predictable", "skill_ci95", "candidates", "guard",
    }  # fmt: skip
    assert all(f'"{key}"' in example for key in top | always | {"calibration", "interval", "distilled"})
    assert set(honest.metrics_) == top
    for name, found in honest.metrics_["tasks"].items():
        own = "interval" if found["kind"] == "regression" else "calibration"
        assert set(found) == always | taught | {own}, name
        assert set(found["guard"]) == {"own", "margin_percent", "gain_percent", "ci95", "verdict"}
        assert set(found["candidates"]) == {"shared", "own_network", "own_lightgbm"} | taught
        assert all(set(candidate) == {"score", "metrics"} for candidate in found["candidates"].values())
    assert set(honest.metrics_["rows"]) == {"train", "stop", "choose", "test", "labelled"}
    assert set(honest.metrics_["seconds"]) == {"shared", "own_network", "own_lightgbm", "total"} | taught
    for cost in honest.metrics_["compute"].values():
        assert set(cost) >= {"cpu_seconds", "rows"}
    assert honest.metrics_["tasks"]["amount"]["interval"].keys() == {"level", "coverage", "mean_width"}
    calibration = honest.metrics_["tasks"]["bought"]["calibration"]
    assert set(calibration) == {"curve", "error_before", "error_after"}
    assert set(calibration["curve"]) == {"predicted", "observed", "count"}


def test_each_target_has_gain_interval_and_who_serves_it(honest):
    for name, found in honest.metrics_["tasks"].items():
        assert found["served_by"] in found["candidates"]
        assert found["motet"] == found["candidates"][found["served_by"]]["score"]
        assert found["single_task"] == found["candidates"][found["guard"]["own"]]["score"]
        if found["served_by"] != found["guard"]["own"]:
            sign = 1 if found["higher_is_better"] else -1
            gain = 100 * sign * (found["motet"] - found["single_task"]) / abs(found["single_task"])
            assert found["gain_percent"] == pytest.approx(gain, abs=1e-3)
            assert found["guard"]["verdict"] == "not worse"
            assert found["guard"]["ci95"][0] >= -found["guard"]["margin_percent"]
        else:
            assert (found["gain_percent"], found["ci95"]) == (0.0, [0.0, 0.0]), name
            assert found["guard"]["verdict"] in {"worse", "not proven"}


def test_the_mean_gain_is_the_mean(honest):
    gains = [found["gain_percent"] for found in honest.metrics_["tasks"].values()]
    assert honest.metrics_["delta_m_percent"] == pytest.approx(np.mean(gains), abs=1e-5)


def test_own_networks_get_together_the_rows_that_the_shared_one_got(honest):
    compute = honest.metrics_["compute"]
    assert 0.5 * compute["shared"]["rows"] <= compute["own_network"]["rows"] <= 1.05 * compute["shared"]["rows"]


@pytest.mark.parametrize("split", ["random", "group", "given", "time"])
def test_the_parts_of_a_table_have_no_row_in_common(split):
    table = small_table(500).with_columns(
        where=pl.Series([f"g{row % 37}" for row in range(500)]),
        part=pl.Series(["train"] * 300 + ["validation"] * 100 + ["test"] * 100),
        when=pl.int_range(500),
    )
    column = {"random": None, "group": "where", "given": "part", "time": "when"}[split]
    prepared = prepare(table, list(TARGETS), split=split, split_column=column, roles={}, seed=0)
    parts = [getattr(prepared.split, name) for name in ("train", "stop", "choose", "test")]
    assert sorted(np.concatenate(parts).tolist()) == list(range(500))
    assert all(len(part) for part in parts)


def test_nothing_learns_from_the_test_rows():
    """Other labels in the test rows change the measured scores and not one prediction."""
    table = small_table(500).with_columns(part=pl.Series(["train"] * 300 + ["validation"] * 100 + ["test"] * 100))
    is_test = pl.col("part") == "test"
    other = table.with_columns(
        amount=pl.when(is_test).then(-pl.col("amount")).otherwise("amount"),
        bought=pl.when(is_test).then(~pl.col("bought")).otherwise("bought"),
    )
    fits = [
        TabularModel(["amount:regression", "bought:binary"], split_column="part", settings=QUICK).fit(frame)
        for frame in (table, other)
    ]
    assert fits[0].predict(table, intervals=True).equals(fits[1].predict(table, intervals=True))
    scores = [fit.metrics_["tasks"]["bought"]["motet"] for fit in fits]
    assert scores[0] == pytest.approx(1 - scores[1], abs=1e-6)


def test_scores_are_those_of_the_test_rows():
    """The proof can be had again from the table with `evaluate`, on the rows that were held out."""
    table = small_table(500).with_columns(part=pl.Series(["train"] * 300 + ["validation"] * 100 + ["test"] * 100))
    model = TabularModel(list(TARGETS), split_column="part", settings=QUICK).fit(table)
    again = model.score(table.filter(pl.col("part") == "test"))
    for name, found in model.metrics_["tasks"].items():
        assert again[name] == pytest.approx(found["motet"], abs=1e-5)


def test_batches_that_lack_a_task():
    """A target with labels in a run of rows only: most batches have none of it."""
    table = small_table(900).with_columns(
        seldom=pl.when(pl.int_range(900) % 60 == 0).then(pl.col("amount").fill_null(50.0))
    )
    model = quick_fit(table, "seldom:regression", "bought:binary")
    losses = [record["losses"] for record in model.log_ if record["event"] == "evaluate" and record["losses"]]
    assert all(math.isfinite(loss) for found in losses for loss in found.values())
    assert model.metrics_["tasks"]["bought"]["predictable"]
    assert np.isfinite(model.predict(table)["seldom"].to_numpy()).all()


def test_targets_with_no_row_in_common_are_both_learned():
    """Each row has a label of one target only: dropping incomplete rows would leave no row at all."""
    half = pl.int_range(1200) % 2 == 0
    table = small_table(1200).with_columns(
        amount=pl.when(half).then(pl.col("n0") * 3), bought=pl.when(~half).then(pl.col("n1") > 0)
    )
    assert len(table.drop_nulls(["amount", "bought"])) == 0
    model = quick_fit(table, "amount:regression", "bought:binary")
    assert all(found["predictable"] for found in model.metrics_["tasks"].values())


def test_a_class_that_only_the_test_rows_have_does_not_break_the_proof():
    table = small_table(500).with_columns(part=pl.Series(["train"] * 300 + ["validation"] * 100 + ["test"] * 100))
    table = table.with_columns(grade=pl.when(pl.int_range(500) > 480).then(pl.lit("new")).otherwise("grade"))
    model = TabularModel([Multiclass("grade")], split_column="part", settings=QUICK).fit(table)
    assert model.classes_["grade"] == ("high", "low", "mid")
    assert model.metrics_["rows"]["labelled"]["grade"]["test"] < table.filter(part="test")["grade"].count()


@pytest.mark.slow
@pytest.mark.skipif(not FLIGHTS.is_file(), reason="the flights are not there")
def test_flights_whose_lateness_is_unknown_still_teach_which_are_cancelled():
    flights = pl.read_parquet(FLIGHTS).sample(30_000, seed=0)
    assert flights.drop_nulls("late15")["cancelled"].n_unique() == 1
    asked = ["cancelled:binary", "late15:binary"]
    roles = dict.fromkeys(["dep_delay", "arr_delay", "air_time", "bucket"], "ignored")
    model = TabularModel(asked, split_column="split", roles=roles, settings=QUICK).fit(flights)
    found = model.metrics_["tasks"]["cancelled"]
    assert found["motet"] > 0.85
    assert found["candidates"]["shared"]["score"] > 0.75
    assert model.metrics_["tasks"]["late15"]["predictable"]
    assert (
        model.metrics_["rows"]["labelled"]["cancelled"]["train"] > model.metrics_["rows"]["labelled"]["late15"]["train"]
    )


def test_rows_in_the_order_of_time_are_named_and_shuffled_rows_are_not():
    table = small_table().sort("amount").with_columns(amount=pl.col("amount").fill_null(0.0))
    ordered = quick_fit(table, "amount:regression")
    assert any("Neighbouring rows have nearly the same 'amount'" in note for note in ordered.run_["notes"])
    shuffled = quick_fit(table.sample(fraction=1.0, shuffle=True, seed=0), "amount:regression")
    assert not any("Neighbouring rows" in note for note in shuffled.run_["notes"])
