"""A fit with MultiTab-Net: the architecture brings its own encoder, and the run gives both back."""

import json
from pathlib import Path

import numpy as np
from small_tables import small_table

import motet
from motet import FitSettings, TabularModel
from motet.models import TabularEncoder, TokenEncoder
from motet.models.sharing import MultiTabNet
from motet.tabular._network import NetworkShape


def test_a_run_gives_back_the_architecture_and_its_encoder(tmp_path: Path) -> None:
    chosen = {"mask": "both", "num_blocks": 1, "hidden": 16}
    # Few rows and a margin of 100 let the shared network serve what it is not proven worse at: its weights are kept.
    settings = FitSettings(
        sharing="multitab-net", sharing_settings=chosen, margin=100.0, max_epochs=6, threads=1, resamples=50
    )
    model = TabularModel(["amount:regression", "bought:binary", "grade:multiclass"], settings=settings)
    model.fit(small_table(300))
    path = model.save(tmp_path / "run")
    (shape,) = [part["shape"] for part in json.loads((path / "run.json").read_text())["networks"]]
    assert shape["sharing"] == "multitab-net"
    assert shape["token_width"] == 32
    assert chosen.items() <= shape["sharing_settings"].items()
    loaded, table = motet.load(path), small_table(60, seed=1)
    network = loaded.served_.networks[0].model
    assert isinstance(network.sharing, MultiTabNet)
    assert isinstance(network.encoder, TokenEncoder)
    again = loaded.estimate(table)
    for name, estimates in model.estimate(table).items():
        np.testing.assert_array_equal(again[name], estimates)
        alone = np.concatenate([loaded.estimate(table[row], tasks=[name])[name] for row in (0, 7, 59)])
        np.testing.assert_allclose(alone, estimates[[0, 7, 59]], rtol=1e-4, atol=1e-6)


def test_an_older_run_keeps_the_encoder_that_it_had() -> None:
    shape = NetworkShape(num_bins=4, num_numbers=2, category_sizes=(3,)).to_dict()
    del shape["token_width"]
    assert isinstance(NetworkShape.from_dict(shape).build([motet.Binary("b", classes=(0, 1))]).encoder, TabularEncoder)
