"""What `plan` reads from checkpoints, on models whose answers are known by hand."""

import json

import numpy as np
import pytest

from motet.merge import methods, plan


@pytest.fixture
def found() -> dict:
    base = {"a": np.array([3.0, 4.0]), "b": np.zeros(4), "n": np.arange(2)}
    experts = [
        {"a": np.array([4.0, 4.0]), "b": np.array([1.0, 1.0, 0.0, 0.0]), "n": np.arange(2)},
        {"a": np.array([3.0, 6.0]), "b": np.array([1.0, -1.0, -1.0, 0.0]), "n": np.arange(2)},
    ]
    return plan(base, experts)


def test_sizes(found):
    assert found["numbers"] == 6
    assert found["tensors"] == {"merged": 2, "kept_from_base": ["n"], "tied": {}}
    assert found["output_bytes"] == 8 * 8
    assert found["largest_tensor"] == "b"
    json.dumps(found)


def test_how_far_experts_moved(found):
    assert [expert["unchanged"] for expert in found["experts"]] == [3 / 6, 2 / 6]
    assert found["experts"][0]["relative_change"] == pytest.approx(3**0.5 / 5)
    assert found["layers"][0]["relative_changes"] == pytest.approx([1 / 5, 2 / 5])
    assert found["layers"][1]["relative_changes"] == [None, None]  # the base is zero there


def test_where_experts_disagree(found):
    assert found["sign_conflicts"] == 1 / 2  # two entries are changed by both, at one of them with both signs
    assert [layer["sign_conflicts"] for layer in found["layers"]] == [0.0, 0.5]
    assert [layer["mean_cosine"] for layer in found["layers"]] == pytest.approx([0.0, 0.0])
    assert found["cosines"][0][0] == pytest.approx(1.0)


def test_which_methods_fit(found):
    fits = {method["name"]: method for method in found["methods"]}
    assert set(fits) == set(methods())
    assert not fits["slerp"]["applies"]
    assert "exactly" in fits["slerp"]["needs"] or "1 experts" in fits["slerp"]["needs"]
    assert fits["ties"]["applies"]
    assert "Fisher information" in fits["fisher"]["needs"]
    assert fits["model_stock"]["applies"]
