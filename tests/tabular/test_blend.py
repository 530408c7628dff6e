"""Blends of candidates: shares by hand, honest comparison, and the way through a run directory."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import motet
from motet import RequestError, TabularModel
from motet.tabular import FitSettings
from motet.tabular._blend import cross_fitted, fit_blend, mixed
from motet.tabular._outcome import Outcome
from motet.tabular._served import _shares
from motet.tasks import Binary, Calibration, Multiclass, Regression

NUMBER = Regression("n", center=0.0, scale=1.0)


def test_errors_that_cancel_are_mixed_in_halves() -> None:
    targets = np.linspace(-1, 1, 50)
    errors = np.random.default_rng(0).normal(size=50)
    estimates = {"a": targets + errors, "b": targets - errors, "c": targets + 9.0}
    assert fit_blend(NUMBER, estimates, targets) == {"a": 0.5, "b": 0.5}


def test_the_best_alone_gets_everything() -> None:
    targets = np.arange(30.0)
    assert fit_blend(NUMBER, {"good": targets, "bad": -targets}, targets) == {"good": 1.0}
    labels = np.array([0.0, 1.0] * 20)
    yes_no = Binary("b", classes=(False, True))
    assert fit_blend(yes_no, {"bad": np.full(40, 0.5), "good": labels}, labels)["good"] > 0


def test_mixtures_of_probabilities_are_probabilities() -> None:
    generator = np.random.default_rng(0)
    grade = Multiclass("g", classes=("x", "y", "z"))
    parts = {name: generator.dirichlet(np.ones(3), size=60) for name in "ab"}
    shares = fit_blend(grade, parts, generator.integers(0, 3, size=60))
    assert sum(shares.values()) == pytest.approx(1.0)
    np.testing.assert_allclose(mixed(parts, shares).sum(axis=1), 1.0)


def test_cross_fitting_takes_shares_from_the_other_half() -> None:
    halves = np.arange(40) < 20
    targets = np.random.default_rng(0).normal(size=40)
    estimates = {"first": np.where(halves, targets, 9.0), "second": np.where(halves, 9.0, targets)}
    # Each candidate is perfect on one half, so shares that the other half chose pick the wrong one.
    np.testing.assert_array_equal(cross_fitted(NUMBER, estimates, targets, halves), np.full(40, 9.0))


def test_one_target_keeps_its_network_once() -> None:
    outcome = Outcome(
        NUMBER, "blend", {"shared": 0.2, "own_network": 0.3, "own_lightgbm": 0.5}, Calibration(), None, {}
    )
    assert _shares(outcome, alone=True) == {"own_lightgbm": 0.5, "shared": 0.5}
    assert _shares(outcome, alone=False) == outcome.shares


def table(rows: int = 3000) -> pl.DataFrame:
    """Two targets, of which one part is linear and one part jumps: network and trees err in different places."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(rows, 12))
    signal = x @ np.full(12, 0.4) + np.sign(x[:, [0, 4, 8]] * x[:, [1, 5, 9]]).sum(axis=1)
    return pl.DataFrame(x, schema=[f"x{number}" for number in range(12)]).with_columns(
        pl.Series("a", signal + 0.3 * generator.normal(size=rows)), pl.Series("b", signal > 0)
    )


@pytest.mark.slow
def test_a_blend_serves_after_a_round_trip(tmp_path: Path) -> None:
    frame = table()
    settings = FitSettings(deploy="best", max_epochs=12, catboost=False)
    model = TabularModel(["a:regression", "b:binary"], settings=settings).fit(frame, out=tmp_path / "run")
    found = model.metrics_["tasks"]["b"]
    assert found["served_by"] == "blend"
    assert sum(found["shares"].values()) == pytest.approx(1.0)
    assert len(found["shares"]) > 1
    single = max(found["candidates"][name]["score"] for name in found["shares"])
    assert found["motet"] == found["candidates"]["blend"]["score"] > single
    again = motet.load(tmp_path / "run")
    assert again.predict(frame.head(50)).equals(model.predict(frame.head(50)))


def test_deploy_is_one_of_two_words() -> None:
    with pytest.raises(RequestError, match=r"deploy is 'bets'.*best.*Choose small or best"):
        FitSettings(deploy="bets")
