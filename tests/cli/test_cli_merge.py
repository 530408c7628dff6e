"""`motet merge`: its output, its plan, scored candidates, and what it refuses, in messages and exit codes."""

import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from motet.cli._merge import Parameters, build
from motet.merge import methods

SCORE = """
from safetensors.numpy import load_file

def near_three(path):
    return -abs(load_file(path)["w"].mean() - 3.0)

def by_task(path):
    mean = float(load_file(path)["w"].mean())
    return {"low": -mean, "high": 2 * mean}

def nothing(path):
    return None

def failing(path):
    raise KeyError("no data")

def by_row(path):
    mean = float(load_file(path)["w"].mean())
    return {"three": [-abs(mean - 3) - 0.1 * (row % 7) for row in range(60)], "one": [-abs(mean - 1)] * 60}

def unknown(path):
    return {task: [1.0] * 60 for task in ("one", "thre")}

def uneven(path):
    return {"one": [1.0] * (60 + ("candidates" in str(path))), "three": [1.0] * 60}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three models: a base of zeros, and experts of ones and threes."""
    monkeypatch.chdir(tmp_path)
    for name, fill in (("base", 0.0), ("one", 1.0), ("three", 3.0)):
        weights = {"w": np.full((2, 3), fill, np.float32), "b": np.arange(3, dtype=np.float32) * fill}
        save_file(weights, f"{name}.safetensors")
    Path("score.py").write_text(SCORE)
    return tmp_path


MODELS = ("base.safetensors", "one.safetensors", "three.safetensors")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {*MODELS, "score.py", "__pycache__"}


def test_a_merge(motet, here):
    called = motet("merge", *MODELS, "--method", "average", "-o", "out.safetensors")
    assert (called.code, called.err) == (0, "")
    assert "Merged: out.safetensors" in called.out
    assert load_file("out.safetensors")["w"].tolist() == [[2.0] * 3] * 2


def test_a_method_gets_its_own_parameters(motet, here):
    called = motet("merge", *MODELS, "--method", "ties", "-o", "out", "--scale", "0.5", "--density", "1", "--scope",
                   "tensor", "--combine", "mean", "--dtype", "float64", "--shard-size", "20KB", "--json")  # fmt: skip
    assert called.code == 0
    assert called.document["record"]["method"] == {
        "name": "ties", "parameters": {"density": 1.0, "scale": 0.5, "scope": "tensor", "combine": "mean"},
    }  # fmt: skip
    assert load_file("out/model.safetensors")["w"].tolist() == [[1.0] * 3] * 2
    called = motet("merge", *MODELS, "--method", "average", "-o", "weighted", "--weights", "3", "--weights", "1")
    assert called.code == 0
    assert load_file("weighted/model.safetensors")["w"].mean() == 1.5


def test_dare_passes_on_what_is_not_its_own_and_takes_the_seed(motet, here):
    words = ("merge", *MODELS, "--method", "dare", "--then", "ties", "--density", "1", "--drop", "0.5", "--json")
    found = [motet(*words, "-o", f"{seed}.safetensors", "--seed", seed).document["record"]["method"] for seed in (1, 2)]
    assert found[0]["parameters"]["seed"] == 1
    assert found[0]["parameters"]["then"]["name"] == "ties"
    assert found[0]["parameters"]["then"]["density"] == 1.0
    assert not np.array_equal(load_file("1.safetensors")["w"], load_file("2.safetensors")["w"])


def test_the_options_are_the_methods_parameters():
    own = {field.name for kind in methods().values() for field in dataclasses.fields(kind)}
    assert {field.name for field in dataclasses.fields(Parameters)} == own - {"seed"}
    for name in methods():
        assert build(name, {}, seed=0) == methods()[name]()


def test_the_plan(motet, here):
    called = motet("merge", *MODELS, "--plan")
    assert called.code == 0
    assert "9 numbers in 2 tensors" in called.out
    assert "slerp" in called.out
    found = motet("merge", *MODELS, "--plan", "--json").document
    assert found["cosines"][0] == pytest.approx([1.0, 1.0])
    assert names(here) == set()


def test_candidates_are_scored_and_the_best_is_kept(motet, here):
    words = (
        "merge",
        *MODELS,
        "--method",
        "average",
        "--method",
        "task_arithmetic",
        "--scale",
        "0.7",
        "-o",
        "out.safetensors",
    )
    called = motet(*words, "--evaluate", "score.py:near_three", "--json")
    assert called.code == 0, called.err
    found = called.document
    assert found["best"] == "TaskArithmetic(scale=0.7)"
    assert [one["model"] for one in found["scores"]] == [*MODELS, "Average(weights=())", "TaskArithmetic(scale=0.7)"]
    assert [one["score"] for one in found["scores"]] == pytest.approx([-3, -2, 0, -1, -0.2], abs=1e-6)
    assert load_file("out.safetensors")["w"].mean() == pytest.approx(2.8)
    assert names(here) == {"out.safetensors"}


def test_scores_by_task(motet, here):
    called = motet("merge", *MODELS, "-o", "out.safetensors", "--evaluate", "score.py:by_task")
    assert called.code == 0
    assert "low" in called.out
    assert "high" in called.out
    assert "Best merge: TaskArithmetic(scale=0.3)" in called.out


def test_a_merge_is_compared_with_each_expert_on_its_own_task(motet, here):
    words = ("merge", *MODELS, "-o", "out.safetensors", "--scale", "0.5", "--evaluate", "score.py:by_row")
    found = motet(*words, "--json").document
    three, one = found["guard"]
    assert (three["task"], three["expert"], three["verdict"]) == ("three", "three.safetensors", "worse")
    assert (one["task"], one["expert"], one["rows"]) == ("one", "one.safetensors", 60)
    assert three["ci95"] == pytest.approx([-1.0, -1.0])  # the rows' own scores cancel in pairs: merged 2, expert 3
    assert found["scores"][0]["tasks"]["one"] == pytest.approx(-1.0)
    Path("out.safetensors").unlink()
    called = motet(*words)
    assert called.code == 0
    assert "-1.0000 to -1.0000" in called.out
    assert "Worse than their experts: three, one" in called.out
    assert "chosen on these rows" not in called.out
    again = motet(*words[:4], "-o", "two.safetensors", *words[6:], "--method", "average", "--method", "task_arithmetic")
    assert "chosen on these rows" in again.out
    assert names(here) == {"out.safetensors", "two.safetensors"}


def test_an_adapter_is_scored_as_the_model_it_stands_for(motet, here):
    Path("three").mkdir()
    Path("three/adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 1, "lora_alpha": 1}))
    factors = {"lora_A": np.ones((1, 3), np.float32), "lora_B": np.full((2, 1), 3, np.float32)}
    save_file({f"base_model.model.w.{name}.weight": part for name, part in factors.items()},
              "three/adapter_model.safetensors")  # fmt: skip
    base = load_file("base.safetensors")
    save_file({"w.weight": base["w"], "b": base["b"]}, "base.safetensors")
    Path("score.py").write_text(SCORE.replace('["w"]', '["w.weight"]'))
    words = ("merge", "base.safetensors", "three", "-o", "out.safetensors", "--evaluate", "score.py:near_three")
    found = motet(*words, "--json")
    assert found.code == 0, found.err
    assert [one["model"] for one in found.document["scores"][:2]] == ["base.safetensors", "three"]
    assert [one["score"] for one in found.document["scores"]] == pytest.approx([-3.0, 0.0, -2.1])
    assert names(here) == {"out.safetensors", "three"}


WRONG = {
    "no output": (["--method", "ties"], "No output was given.*Add -o OUT, or --plan"),
    "no method": (["--method", "tie", "-o", "o.safetensors"], "no merging method 'tie'. Did you mean 'ties'"),
    "not its own": (["--method", "ties", "--drop", ".5", "-o", "o"], "--drop was given, which ties does not take"),
    "takes none": (
        ["--method", "model_stock", "--scale", "1", "-o", "o"],
        "model_stock does not take.*leave --scale out",
    ),
    "no number": (["--scale", "much", "-o", "o"], "scale.*much.*motet merge --help"),
    "out of range": (["--method", "ties", "--density", "7", "-o", "o"], "ties got density=7.0; a number from 0 to 1"),
    "two methods": (["--method", "ties", "--method", "dare", "-o", "o"], "2 methods were given.*Add --evaluate"),
    "no score file": (["--evaluate", "gone.py:f", "-o", "o"], "'gone.py:f' was given; FILE.py:function"),
    "no function": (
        ["--evaluate", "score.py:near_thre", "-o", "o"],
        "no function 'near_thre'. Did you mean 'near_three'",
    ),
    "no score": (["--evaluate", "score.py:nothing", "-o", "o"], "gave None for 'base.safetensors'; a number"),
    "no expert of a task": (["--evaluate", "score.py:unknown", "-o", "o"], "tasks .'one', 'thre'.*Rename the tasks"),
    "other rows": (["--evaluate", "score.py:uneven", "-o", "o"], "61 rows with the merged model and 60.*same rows"),
    "no dtype": (["--dtype", "half", "-o", "o"], "dtype 'half' were asked for"),
    "it exists": (["-o", "one.safetensors"], "'one.safetensors' exists"),
    "too many experts": (["--method", "slerp", "-o", "o"], "slerp got 2 experts; exactly 1"),
}


@pytest.mark.parametrize(("words", "message"), WRONG.values(), ids=WRONG)
def test_wrong_requests(motet, here, words, message):
    called = motet("merge", *MODELS, *words)
    assert called.code == 2
    assert re_search(message, called.err), called.err
    assert "Traceback" not in called.err
    assert names(here) == set()
    assert motet("merge", *MODELS, *words, "--json").document["exit_code"] == 2


def re_search(pattern: str, text: str) -> bool:
    import re

    return re.search(pattern, " ".join(text.split())) is not None


def test_a_scoring_function_that_fails(motet, here):
    called = motet("merge", *MODELS, "-o", "out.safetensors", "--evaluate", "score.py:failing")
    assert called.code == 1
    wanted = "scoring function failed on 'base.safetensors' .KeyError: 'no data'.; a score was expected.*repair it"
    assert re_search(wanted, called.err), called.err
    assert names(here) == set()


def test_nan_is_named_by_file_tensor_and_count(motet, here):
    weights = load_file("three.safetensors")
    weights["b"][1:] = np.nan
    save_file(weights, "three.safetensors")
    called = motet("merge", *MODELS, "-o", "out.safetensors")
    assert called.code == 2
    assert "'b' of 'three.safetensors' holds 2 of 3 numbers that are NaN or infinite" in called.err
    assert names(here) == set()


def test_a_full_disk(motet, here, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("motet.merge._sink.os.pwrite", full)
    called = motet("merge", *MODELS, "-o", "out.safetensors")
    assert called.code == 1
    assert "disk is full: 'out.safetensors'" in called.err
    assert names(here) == set()


PROGRAM = """
import os, signal, sys
import motet.merge._sink, motet.merge._models
motet.merge._sink._SYNC_BYTES = 1
motet.merge._models.THREADS = 1
done = motet.merge._sink.Staged.done
def stop(self, name):
    done(self, name)
    os.kill(os.getpid(), signal.SIGTERM)
motet.merge._sink.Staged.done = stop
from motet.cli import main
sys.exit(main())
"""


def test_a_stopped_merge_says_how_to_go_on(motet, here):
    words = ["merge", *MODELS, "-o", "out.safetensors"]
    stopped = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL),
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert stopped.returncode == 1
    assert "same command with --resume goes on" in stopped.stderr
    assert names(here) == {".out.safetensors.part"}
    assert motet(*words, "--resume").code == 0
    assert names(here) == {"out.safetensors"}
    assert json.loads(motet("methods", "--room", "merge", "--json").out)["methods"]


def test_a_merge_does_not_load_torch(here):
    code = f"from motet.cli import main\nassert main({['merge', *MODELS, '-o', 'o.safetensors']}) == 0"
    ending = "\nimport sys\nassert not {'torch', 'polars', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code + ending], check=True, capture_output=True)
