"""Intervals of effects, slices and scores on a series: rows that are like their neighbours prove less."""

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from known_model import KnownModel

from motet.tabular._effects import feature_effects
from motet.tabular._labelled import Labelled
from motet.tabular._model import evaluated
from motet.tabular._slices import slice_scores
from motet.tasks import Regression

LIKENESS = 0.9
SPREAD = (1 - LIKENESS**2) ** -0.5  # deviation of the series


def series(num_rows: int, seed: int) -> pl.DataFrame:
    """`y` is 3a, with `a` a series of which each value is nine tenths of the last."""
    steps = np.random.default_rng(seed).normal(size=num_rows + 100)
    a = np.zeros(num_rows + 100)
    for place in range(1, len(a)):
        a[place] = LIKENESS * a[place - 1] + steps[place]
    day = [date(2000, 1, 1) + timedelta(days=place) for place in range(num_rows)]
    return pl.DataFrame({"a": a[100:], "day": day, "y": 3 * a[100:]})


def model_of(frame: pl.DataFrame) -> KnownModel:
    return KnownModel.of(frame, [Regression("y")], {"y": lambda rows: 3 * rows["a"].to_numpy()})


def effect(frame: pl.DataFrame, seed: int, split: dict[str, str] | None = None) -> dict[str, float]:
    model = model_of(frame)
    labelled = Labelled.read(model, frame, None, split or {})
    return feature_effects(model, labelled, repeats=3, seed=seed).filter(feature="a").row(0, named=True)


def test_the_interval_of_an_effect_holds_the_truth_of_a_series():
    """The truth is √2 · 3 · SPREAD. Resamples of single rows hold it about half the time."""
    truth = 2**0.5 * 3 * SPREAD
    frames = [series(1000, seed) for seed in range(30)]
    held = [found["low"] <= truth <= found["high"] for found in (effect(frame, 0) for frame in frames)]
    assert sum(held) >= 25
    shuffled = [frame.sample(fraction=1.0, shuffle=True, seed=1) for frame in frames[:5]]
    for frame, other in zip(frames, shuffled, strict=False):
        one, apart = effect(frame, 0), effect(other, 0)
        assert one["high"] - one["low"] > 1.5 * (apart["high"] - apart["low"])


def test_the_order_is_that_of_time_where_the_split_was_by_time():
    frame = series(1000, 0)
    mixed_up = frame.sample(fraction=1.0, shuffle=True, seed=2)
    by_time = effect(mixed_up, 0, {"how": "time", "column": "day"})
    in_order, as_it_lies = effect(frame, 0), effect(mixed_up, 0)
    wide, like, narrow = (found["high"] - found["low"] for found in (in_order, by_time, as_it_lies))
    assert like > 1.4 * narrow
    assert like == pytest.approx(wide, rel=0.35)


def test_scores_and_slices_of_a_series_are_wider_too():
    frame = series(1000, 3).with_columns(part=pl.lit("whole"))
    wrong = KnownModel.of(frame, [Regression("y")], {"y": lambda rows: 2 * rows["a"].to_numpy()})
    widths = []
    for rows in (frame, frame.sample(fraction=1.0, shuffle=True, seed=3)):
        labelled = wrong.labelled(rows)
        low, high = evaluated(wrong, labelled, resamples=300, seed=0)["y"]["ci95"]
        whole = slice_scores(wrong, labelled, "part", bins=2, resamples=300, seed=0).row(0, named=True)
        widths.append((high - low, whole["high"] - whole["low"]))
    assert all(long > 1.5 * short for long, short in zip(*widths, strict=True))
