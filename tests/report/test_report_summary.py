"""The rows that `motet fit` prints at its end."""

import pytest
from flights_run import regression

from motet._errors import RunError
from motet.report import summary_table


def test_rows_for_the_terminal(metrics):
    first, _, third, _ = summary_table(metrics)
    assert first == {
        "task": "dep_delay",
        "kind": "regression",
        "metric": "rmse",
        "constant": "40.21 min",
        "own model": "34.50 min",
        "motet": "34.01 min",
        "gain": "+1.42 % (+1.10 to +1.75)",
        "served by": "shared model",
        "note": "",
    }
    assert third["served by"] == "own LightGBM"
    assert third["note"] == "sharing is worse"
    assert third["gain"] == "0.00 % (0.00 to 0.00)"


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"predictable": False}, "not predictable"),
        ({"gain_percent": -2.0}, "worse than its own model"),
        ({"guard": None}, "not compared"),
        ({"motet": None}, "no score on test rows"),
        ({"served_by": "own_lightgbm", "guard": {"verdict": "not proven"}}, "sharing is not proven harmless"),
        ({"served_by": "distilled", "guard": {"verdict": "worse"}}, ""),
    ],
)
def test_notes(changes, note):
    [row] = summary_table({"tasks": {"a": regression(**changes)}})
    assert row["note"] == note


def test_everything_but_the_name_is_ascii():
    changes = {"gain_percent": -2.0, "ci95": [-3.0, -1.0], "constant": None}
    [row] = summary_table({"tasks": {"größe − 数": regression(**changes)}})
    assert row.pop("task") == "größe − 数"
    assert "".join(row.values()).isascii()
    assert row["gain"] == "-2.00 % (-3.00 to -1.00)"


def test_a_constant_that_is_far_off_does_not_take_the_digits():
    [row] = summary_table({"tasks": {"a": regression(constant=1234.5, single_task=4.432, motet=4.436, unit="")}})
    assert (row["constant"], row["own model"], row["motet"]) == ("1,234.500", "4.432", "4.436")


def test_a_damaged_document():
    with pytest.raises(RunError, match=r"key 'tasks\.a', is 3; expected an object"):
        summary_table({"tasks": {"a": 3}})
