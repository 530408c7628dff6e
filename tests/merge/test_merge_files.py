"""Merges of files: what is read, what is written, and what a kill or a full disk leaves."""

import errno
import json
import mmap
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from merge_cases import family
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from motet.merge import TIES, Average, Fisher, Output, TaskArithmetic, merge, merge_files
from motet.merge._checksum import Checksum

FULL = OSError(errno.ENOSPC, "No space left on device")


def saved(folder: Path, num_experts: int = 3, dtype: torch.dtype = torch.float32) -> tuple[Path, list[Path]]:
    """Checkpoints in files; each with a counter, as batch normalisation has."""
    base, experts = family(0, num_experts)
    paths = []
    for number, model in enumerate((base, *experts)):
        tensors = {key: torch.from_numpy(np.asarray(part)).to(dtype) for key, part in model.items()}
        paths.append(folder / f"model{number}.safetensors")
        save_file(tensors | {"counter": torch.tensor([number])}, paths[-1])
    return paths[0], paths[1:]


def contents(path: Path) -> dict[str, bytes]:
    return {name: tensor.contiguous().view(torch.uint8).numpy().tobytes() if tensor.ndim else repr(tensor).encode()
            for name, tensor in load_file(path).items()}  # fmt: skip


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith("model")}


def test_files_and_state_dicts_give_the_same(tmp_path):
    base, experts = saved(tmp_path)
    merge_files(base, experts, tmp_path / "out.safetensors", method=TIES())
    wanted = merge(load_file(base), [load_file(expert) for expert in experts], method=TIES())
    found = load_file(tmp_path / "out.safetensors")
    assert list(left(tmp_path)) == ["out.safetensors"]
    assert found["counter"].tolist() == [0]
    assert set(found) == set(wanted)
    for name in wanted:
        assert torch.equal(found[name], wanted[name]), name


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_one_expert_makes_the_round_trip_bit_for_bit(tmp_path, dtype):
    base, (expert,) = saved(tmp_path, 1, dtype)
    merge_files(base, [expert], tmp_path / "out.safetensors", method=TaskArithmetic(scale=1.0))
    found, wanted = contents(tmp_path / "out.safetensors"), contents(expert)
    for name in wanted.keys() - {"counter"}:
        assert found[name] == wanted[name], name


@pytest.mark.parametrize("name", ["bfloat16", "float16", "float32", "float64"])
def test_the_output_dtype_is_rounded_as_torch_rounds(tmp_path, name):
    base, experts = saved(tmp_path)
    dtype = getattr(torch, name)
    merge_files(base, experts, tmp_path / "out.safetensors", method=Average(), output=Output(dtype=name))
    found = load_file(tmp_path / "out.safetensors")
    doubles = [load_file(expert) for expert in experts]
    for key in found.keys() - {"counter"}:
        wanted = torch.stack([one[key].double() for one in doubles]).mean(0).float().to(dtype)
        assert found[key].dtype == dtype
        assert torch.allclose(found[key].double(), wanted.double(), rtol=1e-7, atol=0 if name != "float64" else 1e-7)


def test_shards_are_what_hugging_face_reads(tmp_path):
    base, experts = saved(tmp_path)
    source = tmp_path / "modelfolder"
    source.mkdir()
    base.rename(source / "model.safetensors")
    (source / "config.json").write_text('{"hidden": 5}')
    merge_files(source, experts, tmp_path / "out", method=Average(), output=Output(shard_size="0.0001MB"))
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    files = sorted(set(index["weight_map"].values()))
    assert files == [f"model-{n:05}-of-{len(files):05}.safetensors" for n in range(1, len(files) + 1)]
    assert len(files) > 2
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *files,
        "model.safetensors.index.json",
        "config.json",
    }
    found = {key: part for file in files for key, part in load_file(tmp_path / "out" / file).items()}
    total = sum(part.numel() * part.element_size() for part in found.values())
    assert index["metadata"]["total_size"] == total
    assert all(key in load_file(tmp_path / "out" / file) for key, file in index["weight_map"].items())
    # What was written in shards is read from shards.
    wanted = merge(source, experts, method=Average())
    for key, part in merge(tmp_path / "out", [tmp_path / "out"], method=Average()).items():
        assert torch.equal(part, wanted[key])


def test_the_record_says_what_was_merged(tmp_path):
    base, experts = saved(tmp_path)
    record = merge_files(base, experts, tmp_path / "out.safetensors", method=TIES(density=0.5), keep=["scalar"])
    with safe_open(tmp_path / "out.safetensors", framework="np") as file:
        metadata = file.metadata()
    assert metadata["format"] == "pt"
    assert json.loads(metadata["motet_merge"]) == record
    assert record["method"] == {
        "name": "ties", "parameters": {"density": 0.5, "scale": 0.3, "scope": "global", "combine": "sum"},
    }  # fmt: skip
    assert sorted(record["kept_from_base"]) == ["counter", "scalar"]
    sums = [record["base"]["checksum"], *(expert["checksum"] for expert in record["experts"])]
    assert len(set(sums)) == 4
    data = bytearray(base.read_bytes())
    data[-1] ^= 1
    base.write_bytes(data)
    changed = merge_files(base, experts, tmp_path / "again.safetensors", method=TIES(density=0.5), keep=["scalar"])
    assert changed["base"]["checksum"] != sums[0]
    assert changed["experts"] == record["experts"]


@pytest.mark.parametrize("in_files", [True, False])
def test_the_record_names_what_was_measured(tmp_path, in_files):
    base, experts = saved(tmp_path, 2)
    measured = [{"wide.weight": np.full((4, 9), number + 1.0)} for number in range(2)]
    paths = [tmp_path / f"model-fisher{number}.safetensors" for number in range(2)]
    for part, path in zip(measured, paths, strict=True):
        save_file({name: torch.from_numpy(values) for name, values in part.items()}, path)
    sources = tuple(paths) if in_files else tuple(measured)
    record = merge_files(base, experts, tmp_path / "out.safetensors", method=Fisher(statistics=sources))
    named = list(map(str, paths)) if in_files else ["statistics 1", "statistics 2"]
    assert [one["source"] for one in record["statistics"]] == named
    assert len({one["checksum"] for one in [*record["statistics"], *record["experts"]]}) == 4
    assert merge_files(base, experts, tmp_path / "plain.safetensors")["statistics"] == []


def test_the_same_merge_gives_the_same_bytes(tmp_path):
    base, experts = saved(tmp_path)
    for name in ("one", "two"):
        merge_files(base, experts, tmp_path / f"{name}.safetensors", method="dare")
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()


@pytest.mark.parametrize("flips", [[3], [3, 3 + 65536], [7, 7 + 2 * 65536], [63], [0, 65536, 131072, 196608]])
def test_the_checksum_sees_flipped_signs(flips):
    """Two changes of the highest bit in one lane cancel in sums without mixing."""
    data = np.random.default_rng(0).bytes(5 * 65536 + 100)
    changed = bytearray(data)
    for place in flips:
        changed[place] ^= 0x80
    sums = []
    for each in (data, bytes(changed)):
        checksum = Checksum()
        checksum.add(each)
        sums.append(checksum.text())
    assert sums[0] != sums[1]


def test_a_mapped_file_has_the_checksum_of_its_bytes(tmp_path, monkeypatch):
    """Mapped in window by window, with an end that fills none."""
    monkeypatch.setattr("motet.merge._checksum._WINDOW", 2 * 65536)
    data = np.random.default_rng(1).bytes(5 * 65536 + 100)
    (tmp_path / "data").write_bytes(data)
    sums = []
    with (tmp_path / "data").open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        for each in (data, mapped):
            checksum = Checksum()
            checksum.add(each)
            sums.append(checksum.text())
        del each
    assert sums[0] == sums[1]


def stopped_after(count: int, error: BaseException):
    def progress(_: str, done: int, __: int) -> None:
        if done == count:
            raise error

    return progress


@pytest.fixture
def eager_journal(monkeypatch):
    monkeypatch.setattr("motet.merge._sink._SYNC_BYTES", 1)
    monkeypatch.setattr("motet.merge._models.THREADS", 1)


@pytest.mark.parametrize("target", ["out.safetensors", "out"])
def test_an_interrupted_merge_goes_on(tmp_path, eager_journal, monkeypatch, target):
    base, experts = saved(tmp_path)
    merge_files(base, experts, tmp_path / f"whole-{target}", method=TIES())
    with pytest.raises(KeyboardInterrupt):
        merge_files(base, experts, tmp_path / target, method=TIES(), progress=stopped_after(3, KeyboardInterrupt()))
    assert left(tmp_path) == {f"whole-{target}", f".{target}.part"}
    written = []
    write = os.pwrite
    monkeypatch.setattr("motet.merge._sink.os.pwrite", lambda *given: written.append(given) or write(*given))
    merge_files(base, experts, tmp_path / target, method=TIES(), output=Output(resume=True))
    assert len(written) == 2  # of five tensors with entries, three were there
    assert left(tmp_path) == {f"whole-{target}", target}
    one, other = (tmp_path / name / "model.safetensors" if target == "out" else tmp_path / name
                  for name in (target, f"whole-{target}"))  # fmt: skip
    assert one.read_bytes() == other.read_bytes()


def test_a_torn_journal_is_not_believed(tmp_path, eager_journal):
    base, experts = saved(tmp_path)
    out = tmp_path / "out.safetensors"
    with pytest.raises(KeyboardInterrupt):
        merge_files(base, experts, out, progress=stopped_after(1, KeyboardInterrupt()))
    journal = tmp_path / ".out.safetensors.part" / "journal"
    text = journal.read_text()
    for torn in (text[: len(text) - 3], text[:20], ""):
        journal.write_text(torn)
        stop = stopped_after(1, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            merge_files(base, experts, out, output=Output(resume=True), progress=stop)
    merge_files(base, experts, out, output=Output(resume=True))
    merge_files(base, experts, tmp_path / "whole.safetensors")
    assert out.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


def test_another_request_does_not_go_on(tmp_path, eager_journal):
    base, experts = saved(tmp_path)
    out = tmp_path / "out.safetensors"
    with pytest.raises(KeyboardInterrupt):
        merge_files(base, experts, out, method=TIES(), progress=stopped_after(2, KeyboardInterrupt()))
    with pytest.raises(
        ValueError, match=r"unfinished merge of other checkpoints or parameters.*Start without --resume"
    ):
        merge_files(base, experts, out, method=Average(), output=Output(resume=True))
    assert left(tmp_path) == {".out.safetensors.part"}
    merge_files(base, experts, out, method=Average())  # begins anew
    assert left(tmp_path) == {"out.safetensors"}


KILLED = """
import os, signal, sys
import motet.merge._models, motet.merge._sink
motet.merge._sink._SYNC_BYTES = 1
motet.merge._models.THREADS = 1
from motet.merge import merge_files
base, *experts, out = sys.argv[1:]
kill = lambda _, done, __: done == 3 and os.kill(os.getpid(), signal.SIGKILL)
merge_files(base, experts, out, method="ties", progress=kill)
"""


def test_a_killed_merge_leaves_nothing_that_looks_finished(tmp_path):
    base, experts = saved(tmp_path)
    out = tmp_path / "out.safetensors"
    words = [sys.executable, "-c", KILLED, *map(str, (base, *experts, out))]
    assert subprocess.run(words, check=False).returncode == -signal.SIGKILL
    assert left(tmp_path) == {".out.safetensors.part"}
    merge_files(base, experts, out, method="ties", output=Output(resume=True))
    merge_files(base, experts, tmp_path / "whole.safetensors", method="ties")
    assert out.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


@pytest.mark.parametrize("call", ["posix_fallocate", "pwrite", "fsync"])
def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch, call):
    base, experts = saved(tmp_path)

    def full(*_: object) -> None:
        raise FULL

    monkeypatch.setattr(f"motet.merge._sink.os.{call}", full)
    with pytest.raises(RuntimeError, match=r"disk is full: .*out.safetensors.*Free space"):
        merge_files(base, experts, tmp_path / "out.safetensors")
    assert left(tmp_path) == set()


def test_two_merges_do_not_write_one_target(tmp_path, eager_journal):
    base, experts = saved(tmp_path)
    out = tmp_path / "out.safetensors"
    inner = []

    def progress(*_: object) -> None:
        if not inner:
            with pytest.raises(ValueError, match="Another merge is writing") as caught:
                merge_files(base, experts, out)
            inner.append(caught)

    merge_files(base, experts, out, progress=progress)
    assert len(inner) == 1
    assert out.exists()
