"""What a synthetic table promises: the correlation asked for, kinds, missing labels, rows, drift, and no leak."""

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from motet.bench import SynthSettings, synthesise

FEATURES = [f"x{place + 1}" for place in range(16)]


def made(seed: int = 0, **settings: object) -> tuple[pl.DataFrame, dict]:
    frame, truth = synthesise(SynthSettings(**settings), seed=seed)
    return frame, truth.to_dict()


@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.9, 1.0, -0.1])
def test_linear_tasks_have_the_correlation_that_was_asked_for(correlation: float) -> None:
    frame, truth = made(rows=20_000, tasks=6, degree=(1,), correlation=correlation, noise=0.0)
    assert truth["correlation"]["directions_worst_miss"] < 1e-6
    found = np.corrcoef(frame.select(f"task_{number + 1}" for number in range(6)).to_numpy().T)
    assert found[np.triu_indices(6, 1)] == pytest.approx(correlation, abs=0.03)
    assert np.array(truth["correlation"]["labels"]) == pytest.approx(found, abs=1e-4)


def test_powers_lower_the_correlation_of_labels_and_the_record_says_so() -> None:
    """For z + z² with correlation ρ of z it is (ρ + 2ρ²) / 3, by the Hermite polynomials z and z² − 1."""
    _, truth = made(rows=200_000, tasks=3, degree=(2,), correlation=0.4, noise=0.0)
    assert truth["correlation"]["asked"] == 0.4
    assert truth["correlation"]["labels_mean"] == pytest.approx((0.4 + 2 * 0.16) / 3, abs=0.01)


@pytest.mark.parametrize(("degree", "noise"), [((2,), 0.0), ((1, 2, 3), 0.3)])
def test_labels_can_have_the_correlation_that_was_asked_for(degree: tuple[int, ...], noise: float) -> None:
    _, truth = made(rows=100_000, features=6, tasks=4, degree=degree, noise=noise, correlation=0.5, match="labels")
    assert truth["correlation"]["labels_mean"] == pytest.approx(0.5, abs=0.02)
    assert truth["correlation"]["directions_mean"] > 0.55


@pytest.mark.parametrize("degree", [1, 2, 3, 4])
def test_signals_are_standardised_over_the_population(degree: int) -> None:
    _, truth = synthesise(SynthSettings(rows=400_000, features=2, tasks=1, degree=(degree,)))
    assert truth.signals.mean() == pytest.approx(0.0, abs=0.02)
    assert truth.signals.std() == pytest.approx(1.0, abs=0.1)


def test_more_tasks_than_features_come_near_and_the_miss_is_told() -> None:
    _, truth = made(rows=100, features=8, tasks=40, correlation=0.6)
    assert truth["correlation"]["directions_mean"] == pytest.approx(0.6, abs=0.06)
    assert 0.05 < truth["correlation"]["directions_worst_miss"] < 0.5


def test_outliers_agree_among_themselves_and_adversaries_disagree() -> None:
    _, truth = synthesise(SynthSettings(rows=100, tasks=7, outliers=2, adversarial=1, correlation=0.8))
    found = truth.correlation_directions
    assert truth.settings.roles == ("ordinary",) * 4 + ("adversarial",) + ("outlier",) * 2
    assert found[0, 4] == pytest.approx(-0.8)
    assert found[5, 6] == pytest.approx(0.8)
    assert np.abs(found[:5, 5:]).max() == pytest.approx(0.0, abs=1e-9)


def test_each_kind_has_labels_of_its_kind() -> None:
    frame, truth = made(
        rows=20_000, kinds=("regression", "binary", "multiclass", "count"), classes=4, positive_share=0.2,
        scale_ratio=10.0,
    )  # fmt: skip
    assert frame.schema["task_1"] == pl.Float64
    assert frame["task_2"].mean() == pytest.approx(0.2, abs=0.02)
    shares = frame["task_3"].value_counts(normalize=True)["proportion"].to_numpy()
    assert shares == pytest.approx([0.25] * 4, abs=0.03)
    assert frame["task_4"].min() >= 0
    assert frame["task_1"].std() == pytest.approx(truth["tasks"][0]["scale"], rel=0.1)
    assert {task["scale"] for task in truth["tasks"]} - {None} <= {1.0, 2.154435, 4.641589, 10.0}
    assert sorted(truth["tasks"][2]["classes"]) == ["class_1", "class_2", "class_3", "class_4"]


@pytest.mark.parametrize("mechanism", ["mcar", "mar", "mnar"])
def test_labels_are_missing_as_often_and_for_the_reason_asked_for(mechanism: str) -> None:
    settings = SynthSettings(rows=20_000, tasks=2, missing=(0.3, 0.0), mechanism=mechanism)
    frame, truth = synthesise(settings)
    gone = frame["task_1"].is_null().to_numpy()
    assert gone.mean() == pytest.approx(0.3, abs=0.015)
    assert frame["task_2"].null_count() == 0
    by_feature = np.corrcoef(gone, frame["x1"])[0, 1]
    by_label = np.corrcoef(gone, truth.signals[:, 0])[0, 1]
    assert (by_feature > 0.4) == (mechanism == "mar")
    assert (by_label > 0.4) == (mechanism == "mnar")
    assert truth.to_dict()["tasks"][0]["missing_achieved"] == pytest.approx(gone.mean(), abs=1e-6)


def test_rows_of_each_task_are_as_asked_in_both_forms() -> None:
    wide, _ = made(rows=500, tasks=3, rows_per_task=(400, 20))
    assert [500 - wide[f"task_{number}"].null_count() for number in (1, 2, 3)] == [400, 20, 400]
    long, truth = made(tasks=3, rows_per_task=(70, 20, 5), form="long")
    counts = dict(long["task"].value_counts().rows())
    assert counts == {"task_1": 70, "task_2": 20, "task_3": 5}
    assert [task["labelled_rows"] for task in truth["tasks"]] == [70, 20, 5]
    assert long.columns[-3:] == ["task", "label", "split"]


def test_the_long_form_holds_each_rows_own_task() -> None:
    frame, truth = synthesise(SynthSettings(rows=300, tasks=3, form="long", noise=0.0))
    owner = frame["task"].str.slice(-1).cast(pl.Int64).to_numpy() - 1
    assert frame["label"].to_numpy() == pytest.approx(truth.signals[np.arange(300), owner])


def test_drift_turns_directions_and_keeps_how_alike_tasks_are() -> None:
    frame, truth = synthesise(SynthSettings(rows=40_000, features=6, tasks=2, degree=(1,), drift=1.0, noise=0.0))
    x = frame.select(FEATURES[:6]).to_numpy()
    fits = [
        np.linalg.lstsq(x[rows], frame["task_1"].to_numpy()[rows])[0] for rows in (slice(0, 800), slice(-800, None))
    ]
    assert fits[0] @ truth.directions[0] > 0.98
    assert abs(fits[1] @ truth.directions[0]) < 0.1
    late = frame.tail(4000)
    assert np.corrcoef(late["task_1"], late["task_2"])[0, 1] == pytest.approx(0.4, abs=0.06)
    assert frame["time"].is_sorted()
    assert frame.filter(split="train")["time"].max() < frame.filter(split="test")["time"].min()


def test_one_seed_is_one_table_and_another_is_another() -> None:
    settings = SynthSettings(rows=200, kinds=("multiclass", "count"), missing=(0.2,))
    assert_frame_equal(synthesise(settings, seed=3)[0], synthesise(settings, seed=3)[0])
    assert not synthesise(settings, seed=3)[0].equals(synthesise(settings, seed=4)[0])


def test_features_and_split_know_nothing_of_labels() -> None:
    plain, _ = made(rows=300)
    other, _ = made(
        rows=300, tasks=9, degree=(4,), kinds=("count",), missing=(0.5,), outliers=2, noise=1.0, mechanism="mnar"
    )
    assert_frame_equal(plain.select([*FEATURES, "split"]), other.select([*FEATURES, "split"]))


def test_a_rows_label_does_not_depend_on_later_rows() -> None:
    """Cuts, scales and standardisation come from the population, so a shorter table is the head of a longer one."""
    settings = {"kinds": ("regression", "binary", "multiclass"), "tasks": 3}
    _, long = synthesise(SynthSettings(rows=400, **settings))
    _, short = synthesise(SynthSettings(rows=100, **settings))
    assert short.signals == pytest.approx(long.signals[:100])
    shorter, longer = made(rows=100, noise=0.0, **settings)[0], made(rows=400, noise=0.0, **settings)[0]
    assert_frame_equal(shorter.select("task_1", "task_2"), longer.head(100).select("task_1", "task_2"))
