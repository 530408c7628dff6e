"""A fit with a sharing architecture: what trains, what the run records, and what it gives back."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from small_tables import small_table

import motet
from motet import FitSettings, RequestError, TabularModel
from motet.models.sharing import MMoE, methods, settings_of
from motet.tabular import _candidates
from motet.tabular._network import NetworkShape
from motet.tasks import Binary, Regression

TARGETS = ["amount:regression", "bought:binary", "grade:multiclass"]


def fitted(sharing: str, *targets: str, **options: object) -> TabularModel:
    # A margin of 100 lets the shared network serve whatever it scores, so that its weights lie in the artefact.
    settings = FitSettings(
        sharing=sharing, margin=100.0, max_epochs=4, threads=1, resamples=50, sharing_settings=options or None
    )
    return TabularModel(list(targets or TARGETS), settings=settings).fit(small_table(600))


def test_a_run_records_its_architecture_and_answers_alike_when_loaded(tmp_path: Path) -> None:
    model = fitted("mmoe", num_experts=3, dims=(16,), auxiliary={"importance": 0.01})
    assert {"shared", "distilled"} & {part["served_by"] for part in model.metrics_["tasks"].values()}
    path = model.save(tmp_path / "run")
    document = json.loads((path / "run.json").read_text())
    assert document["settings"]["sharing"] == "mmoe"
    shape = document["networks"][0]["shape"]
    assert shape["sharing"] == "mmoe"
    assert shape["sharing_settings"] == {
        "num_experts": 3, "dims": [16], "gate_hidden": [], "auxiliary": {"importance": 0.01},
    }  # fmt: skip
    loaded, table = motet.load(path), small_table(50, seed=1)
    assert isinstance(loaded.served_.networks[0].model.sharing, MMoE)
    for name, estimates in model.estimate(table).items():
        np.testing.assert_array_equal(loaded.estimate(table, tasks=[name])[name], estimates)


def test_own_networks_share_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, train = {}, _candidates.train_network

    def watched(*arguments: object, **options: object) -> object:
        asked[options["stage"]] = options["shape"].sharing
        return train(*arguments, **options)

    monkeypatch.setattr(_candidates, "train_network", watched)
    fitted("cgc")
    assert asked == {"shared": "cgc"} | {f"own_network:{name}": "hard" for name in ("amount", "bought", "grade")}


@pytest.mark.parametrize("sharing", ["home", "task_gated", "dselect_k"])
def test_architectures_with_norms_sparse_experts_and_regularisers_fit(sharing: str, tmp_path: Path) -> None:
    model = fitted(sharing)
    assert all(np.isfinite(part["candidates"]["shared"]["score"]) for part in model.metrics_["tasks"].values())
    table = small_table(40, seed=2)
    found = motet.load(model.save(tmp_path / "run")).estimate(table)
    for name, estimates in model.estimate(table).items():
        assert np.isfinite(estimates).all()
        np.testing.assert_array_equal(found[name], estimates)


def test_one_target_may_have_an_architecture_too() -> None:
    model = fitted("ple", "bought:binary")
    assert model.predict(small_table(5)).shape == (5, 1)


@pytest.mark.parametrize("sharing", sorted(methods()))
def test_every_architecture_is_built_again_from_what_a_run_records(sharing: str) -> None:
    tasks = [Regression("a", center=0.0, scale=1.0), Binary("b", classes=(False, True))]
    shape = NetworkShape(4, 3, (), width=16, sharing=sharing, sharing_settings=settings_of(sharing))
    model = shape.build(tasks)
    again = NetworkShape.from_dict(json.loads(json.dumps(shape.to_dict()))).build(tasks)
    inputs = {"numbers": torch.randn(5, 3), "categories": torch.zeros(5, 0, dtype=torch.int64)}
    assert model(inputs)["a"].requires_grad
    again.load_state_dict(model.state_dict())
    for name, outputs in model.eval()(inputs).items():
        torch.testing.assert_close(again.eval()(inputs)[name], outputs, rtol=0, atol=0)


def test_an_older_run_has_hard_sharing() -> None:
    shape = NetworkShape(num_bins=4, num_numbers=2, category_sizes=(3,))
    older = {key: value for key, value in shape.to_dict().items() if not key.startswith("sharing")}
    assert NetworkShape.from_dict(older) == shape
    assert shape.sharing == "hard"


def test_what_cannot_be_is_said_before_anything_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RequestError, match=r"no sharing architecture 'mmeo'. Did you mean 'mmoe'"):
        FitSettings(sharing="mmeo")
    with pytest.raises(RequestError, match=r"has no setting 'num_expert'. Did you mean 'num_experts'"):
        FitSettings(sharing="mmoe", sharing_settings={"num_expert": 2})
    monkeypatch.setattr("motet.tabular._candidates.TreesBeside", lambda *_, **__: pytest.fail("trained first"))
    with pytest.raises(RequestError, match=r"groups \[\[0\], \[1\]\] were given; the 3 tasks"):
        fitted("home", groups=[[0], [1]])


@pytest.mark.slow
@pytest.mark.parametrize("sharing", sorted(methods()))
def test_every_architecture_learns(sharing: str) -> None:
    settings = FitSettings(sharing=sharing, max_epochs=4, threads=1, resamples=50)
    model = TabularModel(TARGETS, settings=settings).fit(small_table(1500))
    for name, part in model.metrics_["tasks"].items():
        score = part["candidates"]["shared"]["score"]
        better = score > part["constant"] if part["higher_is_better"] else score < part["constant"]
        assert better, (name, score, part["constant"])
