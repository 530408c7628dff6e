"""LoRA adapters, against the products written out."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from motet.merge import TaskArithmetic, merge

BASE = {
    "encoder.query.weight": (6, 5),
    "encoder.query.bias": (6,),
    "embed.weight": (7, 4),
    "conv.weight": (3, 2, 3, 3),
    "head.weight": (2, 6),
}


@pytest.fixture
def base() -> dict:
    generator = np.random.default_rng(0)
    return {name: generator.standard_normal(shape).astype(np.float32) for name, shape in BASE.items()}


def adapter(folder: Path, factors: dict, **config) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 6} | config))
    save_file(
        {f"base_model.model.{name}": part for name, part in factors.items()}, folder / "adapter_model.safetensors"
    )
    return folder


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def merged(base: dict, folder: Path) -> dict:
    return merge(base, [folder], method=TaskArithmetic(scale=1.0))


def test_a_linear_layer(base, tmp_path):
    a, b = random(2, 5), random(6, 2)
    found = merged(base, adapter(tmp_path / "a", {"encoder.query.lora_A.weight": a, "encoder.query.lora_B.weight": b}))
    np.testing.assert_allclose(found["encoder.query.weight"], base["encoder.query.weight"] + 3 * b @ a, atol=2e-6)
    assert np.array_equal(found["head.weight"], base["head.weight"])


def test_rank_stabilised_and_by_pattern(base, tmp_path):
    a, b = random(2, 5), random(6, 2)
    factors = {"encoder.query.lora_A.weight": a, "encoder.query.lora_B.weight": b}
    rooted = merged(base, adapter(tmp_path / "a", factors, use_rslora=True))
    wanted = base["encoder.query.weight"] + 6 / 2**0.5 * b @ a
    np.testing.assert_allclose(rooted["encoder.query.weight"], wanted, atol=3e-6)
    patterned = merged(base, adapter(tmp_path / "b", factors, alpha_pattern={"query": 10, "y": 1000}))
    np.testing.assert_allclose(patterned["encoder.query.weight"], base["encoder.query.weight"] + 5 * b @ a, atol=4e-6)
    turned = {"encoder.query.lora_A.weight": random(2, 6), "encoder.query.lora_B.weight": random(5, 2)}
    fan = merged(base, adapter(tmp_path / "c", turned, fan_in_fan_out=True))
    wanted = base["encoder.query.weight"] + 3 * (random(5, 2) @ random(2, 6)).T
    np.testing.assert_allclose(fan["encoder.query.weight"], wanted, atol=4e-6)


def test_embeddings_convolutions_and_whole_modules(base, tmp_path):
    a, b, conv_a, conv_b, head = random(2, 7), random(4, 2), random(2, 2, 3, 3), random(3, 2, 1, 1), random(2, 6)
    factors = {
        "embed.lora_embedding_A": a, "embed.lora_embedding_B": b, "conv.lora_A.weight": conv_a,
        "conv.lora_B.weight": conv_b, "head.modules_to_save.weight": head,
    }  # fmt: skip
    found = merged(base, adapter(tmp_path / "a", factors))
    np.testing.assert_allclose(found["embed.weight"], base["embed.weight"] + 3 * (b @ a).T, atol=4e-6)
    product = np.einsum("or,rikl->oikl", conv_b[:, :, 0, 0], conv_a)
    np.testing.assert_allclose(found["conv.weight"], base["conv.weight"] + 3 * product, atol=4e-6)
    assert np.array_equal(found["head.weight"], head)


def test_pieces_of_an_update_are_the_whole(base, tmp_path, monkeypatch):
    factors = {"encoder.query.lora_A.weight": random(2, 5), "encoder.query.lora_B.weight": random(6, 2)}
    folder = adapter(tmp_path / "a", factors)
    whole = merged(base, folder)
    monkeypatch.setattr("motet.merge._models.Models.pieces.__defaults__", (7, 1))
    np.testing.assert_allclose(merged(base, folder)["encoder.query.weight"], whole["encoder.query.weight"], atol=1e-6)


@pytest.mark.parametrize(
    ("factors", "config", "message"),
    [
        ({"gone.lora_A.weight": random(2, 5), "gone.lora_B.weight": random(6, 2)}, {}, "'gone.weight', which the base"),
        ({"encoder.query.lora_A.weight": random(2, 5)}, {}, "without .*lora_B.*Save the adapter again"),
        (
            {"encoder.query.lora_A.weight": random(2, 4), "encoder.query.lora_B.weight": random(6, 2)},
            {},
            r"shape \(6, 4\).*has shape \(6, 5\).*another base",
        ),
        ({"head.weight": random(2, 5)}, {}, r"has shape \(2, 5\).*\(2, 6\).*another base"),
        ({"head.weight": random(2, 6)}, {"peft_type": "IA3"}, "kind IA3; plain LoRA was expected.*merge_and_unload"),
        ({"head.weight": random(2, 6)}, {"use_dora": True}, "kind DoRA; plain LoRA was expected"),
        ({"head.weight": random(2, 6)}, {"lora_bias": True}, "kind LoRA with a bias; plain LoRA was expected"),
        ({"head.weight": random(2, 6)}, {"alora_invocation_tokens": [1]}, "kind activated LoRA; plain LoRA was"),
        ({"head.weight": random(2, 6)}, {"init_lora_weights": "pissa_niter_4"}, "LoRA that began as pissa_niter_4"),
        ({"head.weight": random(2, 6)}, {"init_lora_weights": "loftq"}, "LoRA that began as loftq; plain LoRA"),
    ],
)  # fmt: skip
def test_adapters_that_do_not_fit(base, tmp_path, factors, config, message):
    with pytest.raises(ValueError, match=message):
        merged(base, adapter(tmp_path / "a", factors, **config))


@pytest.mark.parametrize("init", [True, False, "gaussian", "eva", "orthogonal"])
def test_beginnings_that_leave_the_base_alone_are_plain(base, tmp_path, init):
    folder = adapter(tmp_path / "a", {"head.modules_to_save.weight": random(2, 6)}, init_lora_weights=init)
    assert np.array_equal(merged(base, folder)["head.weight"], random(2, 6))


def test_an_adapter_that_is_a_pickle_damaged_or_in_the_place_of_the_base(base, tmp_path):
    folder = adapter(tmp_path / "a", {"head.weight": random(2, 6)})
    with pytest.raises(ValueError, match=r"a' is an adapter; a whole model was expected.*Name the adapter's base"):
        merge(folder, [base])
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(ValueError, match=r"adapter_model.bin' is a pickle.*save_file.*'adapter_model.safetensors'"):
        merged(base, folder)
    (folder / "adapter_config.json").write_text("[]")
    with pytest.raises(ValueError, match=r"adapter_config.json' holds no JSON object.*Save the adapter again"):
        merged(base, folder)
