"""A whole run as one graph, against the run itself."""

import json
from dataclasses import replace

import numpy as np
import onnx
import polars as pl
import pytest
import torch
from runtime import columns, encoder, session

import motet
from motet.data import fit_tasks
from motet.serve import Exported, export_onnx
from motet.serve._columns import feed
from motet.serve._int8 import rounded_weights
from motet.tabular._boosting import Boosting, BoostingRows
from motet.tabular._network import NetworkShape
from motet.tabular._prepared import join
from motet.tabular._served import Answer, Fold, Served, ServedNetwork
from motet.tasks import Binary, Calibration, Count, Interval, Multiclass, Regression
from motet.train import Clock


def known() -> motet.TabularModel:
    """A model of four targets, served by a network, by trees and by both, without a training."""
    draw = np.random.default_rng(3)
    frame = columns()
    fitted = encoder(frame)
    labels = frame.select(
        price=pl.Series(draw.normal(50, 20, frame.height)), sold=pl.Series(draw.random(frame.height) < 0.4),
        grade=pl.Series(draw.choice(["a", "b", "c"], frame.height)), visits=pl.Series(draw.poisson(3, frame.height)),
    )  # fmt: skip
    asked = [Regression("price", unit="EUR"), Binary("sold"), Multiclass("grade"), Count("visits")]
    rows = np.arange(frame.height)
    tasks = {task.name: task for task in fit_tasks(labels, asked, rows)}
    shape = NetworkShape(8, len(fitted.number_names), tuple(fitted.category_sizes), width=32, head_width=8)
    edges = torch.linspace(-2, 2, 9).repeat(len(fitted.number_names), 1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = shape.build(list(tasks.values()), edges).eval()
    features = join(fitted.transform(frame))
    matrix = np.nan_to_num(features[:, :1]) + features[:, -1:]
    part = BoostingRows(features, matrix[:, 0].astype(np.float32), len(fitted.category_names))
    counts = BoostingRows(features, np.abs(part.targets), part.num_categories)
    trees = {
        name: Boosting.fit(tasks[name], rows_of, rows_of, seed=0, clock=Clock(0.0), threads=1)[0]
        for name, rows_of in (("price", part), ("visits", counts))
    }
    answers = {
        "price": Answer(tasks["price"], "blend", {"shared": 0.25, "own_lightgbm": 0.75}, Calibration(),
                        Interval("absolute", 0.9, 30.0)),
        "sold": Answer(tasks["sold"], "shared", {"shared": 1.0}, Calibration("platt", (0.8,), (0.1,)), None),
        "grade": Answer(tasks["grade"], "shared", {"shared": 1.0}, Calibration("softmax", (1.1,), (0.1, 0, 0)), None),
        "visits": Answer(tasks["visits"], "own_lightgbm", {"own_lightgbm": 1.0}, Calibration(), None),
    }  # fmt: skip
    model = motet.TabularModel(list(tasks))
    served = ServedNetwork(network, shape, ("price", "sold", "grade"), "shared")
    again = Boosting.fit(tasks["price"], part, part, seed=1, clock=Clock(), threads=1)[0]
    fold = Fold((served,), {"price": again, "visits": trees["visits"]})
    model.served_ = Served(fitted, answers, (served,), trees, (fold,))
    return model


@pytest.fixture(scope="module")
def model() -> motet.TabularModel:
    return known()


@pytest.fixture(scope="module")
def single(model) -> motet.TabularModel:
    """The same, trained on one cut of the rows."""
    found = motet.TabularModel(model.targets)
    found.served_ = replace(model.served_, folds=())
    return found


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory) -> Exported:
    return export_onnx(model, tmp_path_factory.mktemp("onnx") / "out", table=columns(seed=1))


def test_every_target_comes_out_under_its_name_as_the_model_says(model, exported):
    rows = columns(seed=2)
    graph = session((exported.path / "model.onnx").read_bytes())
    assert [one.name for one in graph.get_outputs()] == ["price", "sold", "grade", "visits"]
    expected = model.estimate(rows)
    values = feed(model.served_.encoder, rows)
    for name, found in zip(expected, graph.run(None, values), strict=True):
        assert found.shape == expected[name].shape
        assert expected[name].std() > 0.01
        np.testing.assert_allclose(found, expected[name], rtol=1e-5, atol=1e-5)
    alone = graph.run(["grade"], {name: part[[7]] for name, part in values.items()})[0]
    np.testing.assert_allclose(alone, expected["grade"][[7]], rtol=1e-5, atol=1e-6)


def test_the_file_is_whole_and_says_what_it_is(exported):
    whole = onnx.load(exported.path / "model.onnx")
    onnx.checker.check_model(whole, full_check=True)
    document = json.loads((exported.path / "model.json").read_text(encoding="utf-8"))
    (inside,) = [json.loads(one.value) for one in whole.metadata_props if one.key == "motet"]
    assert {name: document[name] for name in inside} == inside
    assert document["bytes"] == (exported.path / "model.onnx").stat().st_size
    outputs = {one["name"]: one for one in document["outputs"]}
    assert outputs["price"]["unit"] == "EUR"
    assert outputs["price"]["interval"] == {"method": "absolute", "level": 0.9, "radius": 30.0}
    assert outputs["grade"]["classes"] == ["a", "b", "c"]
    assert outputs["visits"]["served_by"] == "own_lightgbm"
    assert document["check"]["rows"] == 400
    assert not document["check"]["made_up"]
    assert 0 < max(document["check"]["largest_difference"].values()) < 1e-4


def test_one_target_alone_takes_no_head_or_tree_of_another(single, exported, tmp_path):
    alone = export_onnx(single, tmp_path / "out", tasks=["grade"])
    assert alone.document["check"]["made_up"]
    assert alone.document["bytes"] < exported.document["bytes"]
    graph = onnx.load(tmp_path / "out" / "model.onnx").graph
    assert [one.name for one in graph.output] == ["grade"]
    assert "TreeEnsemble" not in {node.op_type for node in graph.node}
    assert [list(one.dims) for one in graph.initializer if len(one.dims) == 3 and one.dims[1] == 32] == [[1, 32, 8]]


def test_weights_of_a_byte_say_nearly_the_same_alone_and_in_a_batch(single, tmp_path):
    rows = columns(seed=2)
    found = export_onnx(single, tmp_path / "out", tasks=["sold", "grade"], weights="int8", table=rows)
    data = (tmp_path / "out" / "model.onnx").read_bytes()
    layers = [node for node in onnx.load_from_string(data).graph.node if node.op_type == "MatMulNBits"]
    assert len(layers) == 5  # the projection, and two in each of two blocks
    assert 1e-5 < max(found.document["check"]["largest_difference"].values()) < 0.02
    graph, values = session(data), feed(single.served_.encoder, rows)
    together = graph.run(["grade"], values)[0]
    for row in range(0, 60, 7):
        (alone,) = graph.run(["grade"], {name: part[[row]] for name, part in values.items()})
        np.testing.assert_allclose(alone[0], together[row], rtol=1e-5, atol=1e-6)


def test_weights_are_rounded_to_the_nearest_code_of_their_block():
    weights = np.random.default_rng(0).normal(size=(6, 70)).astype(np.float32)
    weights[2, 32:64] = 0.0
    codes, scales = rounded_weights(weights)
    assert codes.shape == (6, 3, 32)
    again = ((codes.astype(np.float32) - 128) * scales.reshape(6, 3, 1)).reshape(6, 96)
    half_step = np.repeat(scales.reshape(6, 3), 32, axis=1) / 2
    assert (np.abs(again[:, :70] - weights) <= half_step[:, :70] + 1e-7).all()
    assert (again[:, 70:] == 0).all()
    assert (again[2, 32:64] == 0).all()


def test_a_difference_above_the_tolerance_leaves_nothing(model, tmp_path):
    with pytest.raises(motet.RunError, match=r"'visits' comes out.*at most 0 was expected.*--tolerance"):
        export_onnx(model, tmp_path / "out", tasks=["visits"], tolerance=0.0)
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_torch_cannot_export_is_named(single, tmp_path, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        message = "no such operator\nand a long trace"
        raise ValueError(message)

    monkeypatch.setattr(torch.onnx, "export", refuse)
    with pytest.raises(motet.RunError, match=r"'hard' network of grade \(ValueError: no such operator\).*--target"):
        export_onnx(single, tmp_path / "out", tasks=["grade"])
    assert list(tmp_path.iterdir()) == []


def test_what_has_no_form_is_named(model, tmp_path):
    other = motet.TabularModel(["price"])
    answer = replace(model.served_.answers["price"], shares={"own_forest": 0.5, "shared": 0.5})
    other.served_ = replace(model.served_, answers=model.served_.answers | {"price": answer})
    with pytest.raises(motet.RequestError, match=r"no form in ONNX: 'price' \(own_forest\).*--target"):
        export_onnx(other, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_wrong_requests_leave_nothing(model, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    cases = {
        "is not empty.*Choose another": {"out": tmp_path / "full"},
        "is a file.*Choose another": {"out": tmp_path / "full" / "file"},
        "no target 'prise'. Did you mean 'price'": {"tasks": ["prise"]},
        "No target was asked for": {"tasks": []},
        "weights is 'int4'": {"weights": "int4"},
        "tolerance is nan": {"tolerance": float("nan")},
        "7 columns and no rows": {"table": columns().head(0)},
        "lacks the column 'town'": {"table": columns().drop("town")},
    }
    for message, changed in cases.items():
        with pytest.raises(motet.RequestError, match=message):
            export_onnx(model, **({"out": tmp_path / "out", "tasks": ["visits"]} | changed))
    with pytest.raises(motet.RequestError, match="not fitted yet"):
        export_onnx(motet.TabularModel(["a"]), tmp_path / "out")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "full"]
