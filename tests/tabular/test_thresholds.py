"""Thresholds by cost: the cheaper answer, for every pair of costs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_tables import quick_fit, small_table

from motet import RequestError
from motet.tabular._thresholds import read_above, thresholds
from motet.tasks import Binary, Regression

YES_NO = Binary("churned", classes=("no", "yes"))
TASKS = {"churned": YES_NO, "amount": Regression("amount", center=0.0, scale=1.0)}
COST = st.floats(0.01, 100.0)


@given(COST, COST, st.floats(0.0, 1.0))
def test_the_answer_is_the_cheaper_one(false_yes, false_no, chance):
    cut = thresholds(TASKS, {"churned": (false_yes, false_no)})["churned"]
    (said,) = read_above(YES_NO, np.array([chance]), cut)
    expected = {"yes": (1 - chance) * false_yes, "no": chance * false_no}
    assert expected[said] <= min(expected.values()) + 1e-9 * (false_yes + false_no)


@pytest.mark.parametrize(
    ("pair", "cut"), [((1, 1), 0.5), ((1, 9), 0.1), ((9, 1), 0.9), ((0, 1), 0.0), ((1, 0), 1.0), ((1e308, 1e308), 0.5)]
)
def test_thresholds_by_hand(pair, cut):
    assert thresholds(TASKS, {"churned": pair})["churned"] == pytest.approx(cut)


@pytest.mark.parametrize(
    ("costs", "message"),
    [
        ({"churn": (1, 2)}, "not among the predicted targets. Did you mean 'churned'"),
        ({"amount": (1, 2)}, "a regression target; only binary targets have a threshold.*predict_proba"),
        ({"churned": (0, 0)}, "not both zero"),
        ({"churned": (-1, 2)}, "at least zero"),
        ({"churned": (1, float("nan"))}, "two numbers"),
        ({"churned": (1, 2, 3)}, "Give the cost of a false yes and that of a false no"),
        ({"churned": "12"}, "two numbers"),
    ],
)
def test_costs_that_are_none_are_refused(costs, message):
    with pytest.raises(RequestError, match=message):
        thresholds(TASKS, costs)


def test_a_fitted_model_answers_by_cost():
    model = quick_fit(small_table(500), "amount:regression", "bought:binary")
    fresh = small_table(200, seed=1)
    chances = model.estimate(fresh)["bought"]
    careful = model.predict(fresh, costs={"bought": (1, 9)})
    assert careful["bought"].to_list() == (chances > 0.1).tolist()
    plain = model.predict(fresh)
    assert plain["bought"].to_list() == (chances > 0.5).tolist()
    assert careful["amount"].equals(plain["amount"])
    assert careful["bought"].sum() > plain["bought"].sum()
    with pytest.raises(RequestError, match="not among the predicted targets"):
        model.predict(fresh, tasks=["amount"], costs={"bought": (1, 9)})
