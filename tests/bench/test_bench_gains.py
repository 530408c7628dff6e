"""Gains against single-task training, their intervals, and the verdicts on claims: cases solved by hand."""

import numpy as np
import pytest
from scipy import stats

from motet.balance import methods, wrappers
from motet.bench import (
    BUDGETS,
    CLAIMS,
    PROBLEMS,
    Claim,
    Gains,
    Grid,
    Measured,
    claim_counts,
    ledger,
    result,
    summary_rows,
)
from motet.bench._gains import T_VALUES, estimate

MORE, LESS = {"p": {"higher_is_better": True}}, {"p": {"higher_is_better": False}}


def cell(method, seed, *scores, seconds=1.0, status="done"):
    return {
        "problem": "p", "method": method, "seed": seed, "status": status, "error": "it broke",
        "scores": {f"t{place}": score for place, score in enumerate(scores)}, "wall_seconds": seconds,
        "cpu_seconds": 2 * seconds,
    }  # fmt: skip


def test_a_gain_is_the_mean_of_the_tasks_relative_differences():
    cells = [cell("single", 0, 0.5, 0.8), cell("m", 0, 0.6, 0.6)]
    assert Gains(cells, MORE).by_seed("p", "m")[0] == pytest.approx(100 * (0.2 - 0.25) / 2)
    assert Gains(cells, LESS).by_seed("p", "m")[0] == pytest.approx(-100 * (0.2 - 0.25) / 2)
    mixed = {"p": {"higher_is_better": {"t0": True, "t1": False}}}
    assert Gains(cells, mixed).by_seed("p", "m")[0] == pytest.approx(100 * (0.2 + 0.25) / 2)
    assert Gains(cells, MORE).gain("p", "single").mean == 0.0


def test_a_seed_without_scores_is_left_out():
    cells = [cell("single", 0, 0.5), cell("single", 1, 0.5), cell("m", 0, status="failed"), cell("m", 1, 0.6)]
    gains = Gains(cells, MORE)
    assert list(gains.by_seed("p", "m")) == [1]
    assert gains.failures("p", "m") == ["seed 0: failed: it broke"]
    assert Gains(cells[:3], MORE).gain("p", "m") is None


def test_the_interval_is_students():
    found = estimate([1.0, 2.0, 3.0])
    assert (found.mean, found.low, found.high) == pytest.approx((2.0, 2 - 4.303 / 3**0.5, 2 + 4.303 / 3**0.5))
    assert estimate([]) is None
    assert estimate([1.5]).low is None
    np.testing.assert_allclose(T_VALUES, stats.t.ppf(0.975, np.arange(1, len(T_VALUES) + 1)), atol=6e-4)


def test_costs_are_ratios_to_equal_of_the_same_seed():
    cells = [cell("equal", seed, 1.0, seconds=2.0) for seed in range(3)]
    cells += [cell("m", seed, 1.0, seconds=seconds) for seed, seconds in enumerate((4.0, 6.0, 50.0))]
    assert Gains(cells, MORE).cost("p", "m") == 3.0
    assert Gains(cells[3:], MORE).cost("p", "m") is None


@pytest.mark.parametrize(
    ("scores", "verdict"),
    [
        ((0.60, 0.61, 0.60), "held"),
        ((0.40, 0.41, 0.40), "not held"),
        ((0.40, 0.62, 0.51), "not separable"),
        ((0.60,), "one seed"),
        ((), "not measured"),
    ],
)
def test_the_verdict_on_a_claim(scores, verdict):
    cells = [cell(name, seed, 0.5) for name in ("single", "equal") for seed in range(3)]
    cells += [cell("m", seed, score) for seed, score in enumerate(scores)] or [cell("m", 0, status="failed")]
    claims = [Claim("m", "equal", (2.0, 1.0), "elsewhere", "a paper"), Claim("gone", "equal", (2.0, 1.0), "", "")]
    rows = ledger(Gains(cells, MORE), claims)
    assert [row["verdict"] for row in rows] == [verdict]
    assert claim_counts(rows) == {verdict: 1}


def test_claims_speak_of_what_there_is():
    known = {*methods(), *wrappers(), "single"}
    for claim in CLAIMS:
        assert set(f"{claim.better}+{claim.worse}".split("+")) <= known
        assert set(claim.problems) <= set(PROBLEMS)
        less = "less is better" in claim.measured_on
        assert claim.figures is None or (claim.figures[0] < claim.figures[1]) == less, claim


def test_the_result_orders_by_gain_and_says_what_failed():
    about = {"p": {"higher_is_better": True}}
    cells = [cell(name, seed, 0.5, 0.5) for name in ("single", "equal") for seed in (0, 1)]
    cells += [cell("cagrad", seed, 0.6, 0.5, seconds=3.0) for seed in (0, 1)]
    cells += [cell("mgda", seed, status="failed") for seed in (0, 1)]
    grid = Grid(["single", "equal", "cagrad", "mgda"], [0, 1], BUDGETS["full"])
    document = result(Measured(cells, about), grid, command="motet bench balance")
    assert document["methods"]["cagrad"]["p"]["delta_m"] == {"mean": 10.0, "ci95": [10.0, 10.0], "seeds": 2}
    assert document["methods"]["cagrad"]["p"]["scores"] == {"t0": 0.6, "t1": 0.5}
    assert document["overall"]["mgda"] == {"mean_delta_m": None, "wall_ratio": None, "cpu_ratio": None}
    assert document["versions"]["motet"]
    assert document["command"] == "motet bench balance"
    columns, rows = summary_rows(document)
    assert columns == ["method", "p", "mean", "time"]
    assert rows[0] == ["cagrad", "+10.00 [+10.00, +10.00]", "+10.00", "3.00"]
    assert rows[-1] == ["mgda", "failed", "-", "-"]
