"""Requests that cannot be met: what arrived, what was expected, what to do; and nothing is written."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from merge_cases import family
from safetensors.numpy import save_file

from motet._errors import RequestError
from motet.merge import (
    DARE,
    TIES,
    Average,
    CoDiEmb,
    Fisher,
    IsoC,
    Output,
    RegMean,
    Slerp,
    Sphinx,
    TaskArithmetic,
    merge,
    merge_files,
)


def one(shape: tuple[int, ...] = (3,), fill: float = 0.0, name: str = "w") -> dict:
    return {name: np.full(shape, fill, np.float32)}


NAN = {"w": np.array([1.0, np.nan, np.inf], np.float32)}
CASES = {
    "shape": (one(), [one((4,))], {}, r"'w' has shape \(4,\) in 'expert 1' and \(3,\) in 'the base'.*keep"),
    "missing": (one() | one(name="v"), [one()], {}, "'expert 1' lacks 1 of the tensors of 'the base': 'v'"),
    "extra": (one(), [one() | one(name="v")], {}, r"'the base' lacks 1 of the tensors of 'expert 1': 'v'.*Remove"),
    "none": (one(), [], {}, "No expert was given.*Name the experts"),
    "integers": (one(), [{"w": np.zeros(3, np.int64)}], {}, "'w' has dtype I64 in 'expert 1' and F32.*quantised"),
    "objects": ({"w": "text"}, [one()], {}, "'w' of the base has type str.*state_dict"),
    "complex": ({"w": np.zeros(3, complex)}, [one()], {}, "'w' of the base has dtype complex128"),
    "nothing": ({"n": np.zeros(2, np.int64)}, [{"n": np.zeros(2, np.int64)}], {}, "no floating-point tensor"),
    "nan": (one(), [one(), NAN], {}, "'w' of 'expert 2' holds 2 of 3 numbers that are NaN or infinite.*earlier"),
    "nan base": (NAN, [one()], {"method": TIES()}, "'w' of 'the base' holds 2 of 3 numbers"),
    "keep": (one(), [one()], {"keep": ["head.*"]}, r"No tensor fits keep='head.\*'.*'w'"),
    "name": (one(), [one()], {"method": "tyes"}, "no merging method 'tyes'. Did you mean 'ties'.*motet methods"),
    "dtype": (one(), [one()], {"dtype": "float8"}, "dtype 'float8' were asked for.*Did you mean 'float"),
    "density": (one(), [one()], {"method": TIES(density=1.5)}, "ties got density=1.5; a number from 0 to 1"),
    "scope": (one(), [one()], {"method": TIES(scope="layer")}, "ties got scope='layer'; 'global' or 'tensor'"),
    "combine": (one(), [one()], {"method": TIES(combine="max")}, "ties got combine='max'; 'sum' or 'mean'"),
    "drop": (one(), [one()], {"method": DARE(drop=1.0)}, "dare got drop=1.0; a share from 0"),
    "then": (one(), [one()], {"method": DARE(then=IsoC())}, "dare got then=iso_c; average"),
    "slerp": (one(), [one(), one()], {"method": Slerp()}, "slerp got 2 experts; exactly 1 were expected.*--plan"),
    "fraction": (one(), [one()], {"method": Slerp(fraction=2)}, "slerp got fraction=2"),
    "sphinx": (one(), [one()], {"method": Sphinx()}, "sphinx got 1 experts; exactly 2"),
    "power": (one(), [one()], {"method": CoDiEmb(power=-1)}, "codiemb got power=-1"),
    "weights": (one(), [one()], {"method": Average(weights=(1, 2))}, r"average got weights \(1, 2\) for 1 experts"),
    "no weight": (one(), [one()], {"method": Average(weights=(0,))}, "sum above zero"),
    "no statistics": (one(), [one()], {"method": Fisher()}, "fisher got 0 statistics for 1 experts.*--statistics"),
    "statistics fit": (one(), [one()], {"method": Fisher(statistics=(one((4,)),))}, r"\(4,\); fisher expected \(3,\)"),
    "statistics below zero": (
        one(), [one()], {"method": Fisher(statistics=(one(fill=-1.0),))}, "'statistics 1' holds numbers below zero",
    ),
    "statistics nan": (one(), [one()], {"method": Fisher(statistics=(NAN,))}, "'w' of 'statistics 1' holds NaN"),
    "some statistics": (
        one(), [one(), one()], {"method": Fisher(statistics=(one(), one(name="v")))}, "'statistics 2' lacks 'w'.*alike",
    ),
    "gram": (one((2, 3)), [one((2, 3))], {"method": RegMean(statistics=(one((2, 2)),))}, r"regmean expected \(3, 3\)"),
}  # fmt: skip


@pytest.mark.parametrize(("base", "experts", "options", "message"), CASES.values(), ids=CASES)
def test_what_does_not_fit(base, experts, options, message):
    with pytest.raises(RequestError, match=message):
        merge(base, experts, **options)


SUMS = {
    "scale": TaskArithmetic(scale=0.0),
    "weight": Average(weights=(1.0, 0.0)),
    "task arithmetic": TaskArithmetic(),
    "average": Average(),
    "without the base": TaskArithmetic(scale=0.5),
}


@pytest.mark.parametrize("method", SUMS.values(), ids=SUMS)
@pytest.mark.parametrize("bad", [[np.nan], [np.inf], [-np.inf], [np.inf, -np.inf]])
@pytest.mark.parametrize("dtype", [None, "bfloat16", "float16", "float64"])
def test_a_sum_finds_what_is_not_finite_in_its_result(method, bad, dtype):
    """These methods look for it in the merged numbers alone; a coefficient of zero does not hide it."""
    expert = one((8,)) | {"v": np.ones(8, np.float32)}
    broken = {name: part.copy() for name, part in expert.items()}
    broken["v"][: len(bad)] = bad
    with pytest.raises(RequestError, match=f"'v' of 'expert 2' holds {len(bad)} of 8 numbers"):
        merge(expert, [expert, broken], method=method, dtype=dtype)
    with pytest.raises(RequestError, match=f"'v' of 'the base' holds {len(bad)} of 8 numbers"):
        merge(broken, [expert, expert], method=method, dtype=dtype)
    every_bit = {"v": np.array([0x7FFFFFFF] * 8, np.uint32).view(np.float32)} | one((8,))
    with pytest.raises(RequestError, match="'v' of 'expert 1' holds 8 of 8 numbers"):
        merge(expert, [every_bit, broken], method=method, dtype=dtype)


def test_numbers_too_large_for_the_output():
    big = one(fill=60000.0)
    with pytest.raises(RuntimeError, match=r"'w' holds numbers too large for F16.*--dtype float32"):
        merge(big, [one(fill=65000.0)] * 2, method=TaskArithmetic(scale=1.0), dtype="float16")
    kept = {"head": np.full(3, 1e30, np.float32)}
    with pytest.raises(RuntimeError, match=r"'head' holds numbers too large for F16.*--dtype float32"):
        merge(one() | kept, [one()], keep=["head"], dtype="float16")
    masked = {"mask": np.array([-np.inf, 0.0], np.float32)}  # what the base holds on purpose stays
    assert merge(one() | masked, [one()], keep=["mask"], dtype="float16")["mask"].tolist() == [-np.inf, 0.0]
    with pytest.raises(RuntimeError, match="too large for BF16"):
        merge(one(fill=3e38), [one(fill=3.4e38)], method="average", dtype="bfloat16")


def test_heads_of_their_own_stay_out():
    base, experts = one() | one((2,), name="head"), [one(fill=2) | one((5,), name="head"), one(fill=4)]
    found = merge(base, experts, method="average", keep=["head"])
    assert found["w"].tolist() == [3, 3, 3]
    assert found["head"].tolist() == [0, 0]
    assert set(merge(one(), [one() | one(name="other")], method="average", keep=["other"])) == {"w"}


def test_tied_weights_stay_tied():
    shared = torch.zeros(3)
    base = {"embed": shared, "head": shared}
    expert = {"embed": torch.ones(3), "head": torch.ones(3)}
    found = merge(base, [expert], method="dare")
    assert found["embed"] is found["head"]
    with pytest.raises(
        RequestError, match=r"'head' and 'embed' are one tensor in the base, and differ in 'expert 1'.*Untie"
    ):
        merge(base, [expert | {"head": torch.zeros(3)}], method="average")


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    base, (expert,) = family(0, 1)
    paths = tmp_path / "base.safetensors", tmp_path / "expert.safetensors"
    for path, model in zip(paths, (base, expert), strict=True):
        save_file({key: np.asarray(part) for key, part in model.items()}, path)
    return paths


def rejected(path: Path, base: Path, message: str) -> None:
    before = sorted(base.parent.rglob("*"))
    with pytest.raises(RequestError, match=message):
        merge_files(base, [path], base.parent / "out.safetensors")
    assert sorted(base.parent.rglob("*")) == before


def test_a_file_that_is_not_there(files):
    rejected(files[0].with_name("gone.safetensors"), files[0], "no file '.*gone.safetensors'")


def test_a_pickle_is_refused_with_the_way_to_convert(files, tmp_path):
    torch.save(one(), tmp_path / "model.bin")
    rejected(tmp_path / "model.bin", files[0], r"pickle checkpoint.*weights_only=True\), 'model.safetensors'\)")
    torch.save(one(), tmp_path / "model.safetensors")  # only its name is right
    rejected(tmp_path / "model.safetensors", files[0], "pickle checkpoint")
    folder = tmp_path / "folder"
    folder.mkdir()
    rejected(folder, files[0], "holds neither model.safetensors nor model.safetensors.index.json.*adapter_config")
    torch.save(one(), folder / "pytorch_model.bin")
    rejected(folder, files[0], "pytorch_model.bin' is a pickle checkpoint")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:4], "shorter than a header"),
        (lambda data: data[:-3], "no whole safetensors file: '.*' lies at bytes"),
        (lambda data: data[:20], "longer than the file"),
        (lambda data: data[:8] + b"x" + data[9:], "its header does not read"),
        (lambda data: (2).to_bytes(8, "little") + b"[]", "its header does not read"),
    ],
)
def test_a_damaged_file(files, damage, message):
    files[1].write_bytes(damage(files[1].read_bytes()))
    rejected(files[1], files[0], message)


def test_a_quantised_file(files):
    text = json.dumps({"w": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}).encode()
    files[1].write_bytes(len(text).to_bytes(8, "little") + text + b"ab")
    rejected(files[1], files[0], "dtype F8_E4M3.*merge the originals and quantise the result")


def test_an_index_that_does_not_read(files, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "model.safetensors.index.json").write_text("{}")
    rejected(folder, files[0], "no readable weight_map")


def test_nan_in_a_file_is_named_and_nothing_is_left(files):
    _, (expert,) = family(0, 1)
    expert["wide.weight"][2, 3] = np.nan
    save_file({key: np.asarray(part) for key, part in expert.items()}, files[1])
    rejected(files[1], files[0], r"'wide.weight' of '.*expert.safetensors' holds 1 of 36 numbers")


def test_an_output_that_exists_or_cannot_be(files, tmp_path):
    taken = tmp_path / "taken.safetensors"
    taken.write_bytes(b"mine")
    with pytest.raises(RequestError, match=r"taken.safetensors' exists.*Remove it, or choose"):
        merge_files(files[0], [files[1]], taken)
    assert taken.read_bytes() == b"mine"
    with pytest.raises(RuntimeError, match=r"could not be written.*folder exists"):
        merge_files(files[0], [files[1]], tmp_path / "no" / "where" / "out.safetensors")
    with pytest.raises(RequestError, match=r"Shards were asked for in the one file.*Leave '.safetensors' out"):
        merge_files(files[0], [files[1]], tmp_path / "a.safetensors", output=Output(shard_size="1GB"))
    with pytest.raises(RequestError, match=r"shard size 'much' was given.*5GB"):
        merge_files(files[0], [files[1]], tmp_path / "a", output=Output(shard_size="much"))
