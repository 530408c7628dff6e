"""Weights in half the bytes: what is stored is what was judged."""

import torch
from safetensors.torch import load_file

from motet.tabular._halves import rounded, stored
from motet.train import write_tensors


def test_named_tensors_are_rounded_and_others_are_not():
    state = {"weight": torch.randn(64, 64), "edges": torch.randn(64, 64) * 15_700, "starts": torch.arange(3)}
    found = rounded(state, {"weight", "starts"})
    assert torch.equal(found["edges"], state["edges"])
    assert torch.equal(found["starts"], state["starts"])
    assert found["weight"].dtype == torch.float32
    assert not torch.equal(found["weight"], state["weight"])
    assert torch.allclose(found["weight"], state["weight"], rtol=2**-11)


def test_a_number_out_of_range_leaves_its_tensor_alone():
    state = {"weight": torch.full((64, 64), 1e6)}
    assert torch.equal(rounded(state, {"weight"})["weight"], state["weight"])
    assert stored(state["weight"]).dtype == torch.float32


def test_what_is_stored_loses_nothing(tmp_path):
    whole = torch.randn(64, 64)
    narrow = rounded({"weight": whole}, {"weight"})["weight"]
    write_tensors(tmp_path / "x.safetensors", {"narrow": stored(narrow), "whole": stored(whole)})
    found = load_file(tmp_path / "x.safetensors")
    assert (found["narrow"].dtype, found["whole"].dtype) == (torch.float16, torch.float32)
    assert torch.equal(found["narrow"].float(), narrow)
    assert torch.equal(found["whole"], whole)
