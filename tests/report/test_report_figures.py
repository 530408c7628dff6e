"""Drawings put values where they belong; numbers read as a person writes them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

import motet.tasks  # noqa: F401 - brings the kinds of task
from motet.report._conflict import conflicts
from motet.report._curves import learning_curves
from motet.report._figures import Whisker, calibration_figure, gains_figure
from motet.report._results import read_results
from motet.report._svg import Axes, ticks
from motet.report._words import METRICS, count, decimal, decimals, duration, listed, percent, pipeline_tag
from motet.tasks._task import Task


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 100.0, [0, 20, 40, 60, 80, 100]),
        (-1.2, 1.1, [-1, -0.5, 0, 0.5, 1]),
        (0.3, 0.3, [0.3]),
        (1000.0, 9000.0, [2000, 4000, 6000, 8000]),
    ],
)
def test_ticks(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9))
def test_ticks_lie_inside_and_are_few(low, width):
    high = low + width
    if high - low < 1e-9 * abs(low) or high <= low:
        return
    found = ticks(low, high)
    assert 1 <= len(found) <= 10
    assert all(low - 1e-6 * width <= tick <= high + 1e-6 * width for tick in found)


def test_axes_map_the_corners():
    axes = Axes(10, 20, 100, 50, (0, 4), (-1, 1))
    assert (axes.px(0), axes.px(4), axes.py(-1), axes.py(1)) == (10, 110, 70, 20)


def test_gains_stand_in_order_on_the_axis():
    rows = [Whisker("a", -1.0, (-2.0, 0.5), "shared"), Whisker("b", 1.0, None, "own"), Whisker("c", None, None, "own")]
    drawn = gains_figure(rows, 0.5, "title")
    first, second = (float(x) for x in re.findall(r'<circle cx="([\d.]+)"', drawn))
    zero = float(re.findall(r'x1="([\d.]+)"[^>]*class="zero"', drawn)[0])
    margin = float(re.findall(r'x1="([\d.]+)"[^>]*class="margin"', drawn)[0])
    assert first < margin < zero < second
    assert second - zero == pytest.approx(zero - first, abs=0.2)
    assert zero - margin == pytest.approx((zero - first) / 2, abs=0.2)
    assert "not compared" in drawn


def test_calibration_leaves_out_empty_bins():
    curve = {"predicted": [0.1, 0.5, 0.9], "observed": [0.2, None, 0.8], "count": [10, 0, 30]}
    drawn = calibration_figure(curve, "x")
    assert drawn is not None
    assert drawn.count("<circle") == 2
    assert "predicted 0.900, observed 0.800, 30 rows" in drawn
    assert calibration_figure({"predicted": []}, "x") is None


def task(*, higher):
    return {"kind": "k", "metric": "m", "higher_is_better": higher}


@pytest.mark.parametrize(("higher", "best"), [(True, (2.0, 0.9)), (False, (1.0, 0.5))])
def test_curves_mark_the_best_and_a_resumed_step_counts_once(higher, best):
    log = [
        {"event": "evaluate", "stage": "shared", "step": step, "epoch": epoch, "scores": {"a:b": score, "other": 1}}
        for step, epoch, score in [(10, 1, 0.5), (20, 2, 0.1), (20, 2, 0.9), (30, 3, 0.7), (40, 4, None)]
    ]
    log.append({"event": "evaluate", "stage": "own_network:a:b", "step": 5, "epoch": 0.5, "scores": {"a:b": 0.6}})
    curves, axis = learning_curves(log, read_results({"tasks": {"a:b": task(higher=higher)}}))
    assert axis == "epoch"
    assert list(curves) == ["a:b"]
    shared, own = curves["a:b"]
    assert shared.points == [(1.0, 0.5), (2.0, 0.9), (3.0, 0.7)]
    assert shared.best == best
    assert own.stage == "own_network"


def test_without_epochs_the_axis_is_steps():
    log = [{"event": "evaluate", "stage": "shared", "step": 10, "scores": {"a": 1.0}}]
    curves, axis = learning_curves(log, read_results({"tasks": {"a": task(higher=True)}}))
    assert axis == "step"
    assert curves["a"][0].points == [(10.0, 1.0)]


def test_a_long_curve_keeps_its_best_and_its_last_point():
    log = [
        {"event": "evaluate", "stage": "shared", "step": step, "scores": {"a": 1.0 if step == 777 else 0.0}}
        for step in range(1000)
    ]
    [series] = learning_curves(log, read_results({"tasks": {"a": task(higher=True)}}))[0]["a"]
    assert len(series.points) < 160
    assert (777.0, 1.0) in series.points
    assert series.points[-1] == (999.0, 0.0)


def test_cosines_are_averaged_by_pair_over_batches_that_lack_tasks():
    log = [
        {"event": "conflict", "stage": "shared", "step": 1, "tasks": ["a", "b", "c"],
         "cosines": [[1, -0.4, 0.1], [-0.4, 1, None], [0.1, None, 1]]},
        {"event": "conflict", "stage": "shared", "step": 2, "tasks": ["b", "a"], "cosines": [[1, 0.2], [0.2, 1]]},
        {"event": "conflict", "stage": "own_network:a", "step": 3, "tasks": ["b", "a"], "cosines": [[1, 1], [1, 1]]},
    ]  # fmt: skip
    lowest, highest = conflicts(log, ["a", "b", "c"])
    assert (lowest.first, lowest.second, lowest.num_opposed) == ("a", "b", 1)
    assert lowest.mean == pytest.approx(-0.1)
    assert (highest.first, highest.second, highest.mean) == ("a", "c", pytest.approx(0.1))


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.0, "0.00 %"), (-0.001, "0.00 %"), (1.234, "+1.23 %"), (-45.67, "−45.7 %"), (-2345.6, "−2,346 %"), (None, "–")],
)
def test_percent(value, expected):
    assert percent(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.9531, "0.9531"),
        (34.012, "34.01"),
        (81234.5, "81,234"),
        (0.00012345, "0.0001234"),
        (-2.5, "−2.500"),
        (0, "0.000"),
    ],
)
def test_four_digits(value, expected):
    assert decimal(value, decimals([value])) == expected


def test_every_kind_of_task_has_its_metric_in_plain_words():
    kinds = [kind for base in Task.__subclasses__() for kind in base.__subclasses__() or [base]]
    assert len(kinds) >= 7
    assert {kind.metric for kind in kinds} <= METRICS.keys()
    in_unit = {kind.kind for kind in kinds if pipeline_tag(kind.kind) == "tabular-regression"}
    assert in_unit == {"regression", "count", "quantile"}


def test_small_words():
    assert [listed(list("abcd"[:n])) for n in range(4)] == ["", "`a`", "`a` and `b`", "`a`, `b` and `c`"]
    assert [duration(s) for s in (None, 4.25, 119.0, 600.0, 7200.0)] == ["–", "4.2 s", "119.0 s", "10.0 min", "2.0 h"]
    assert [count(n) for n in (None, float("nan"), 1234567, True)] == ["–", "–", "1,234,567", "–"]
