"""A disk that is full, wherever the write happens: a message, exit code 1, and a run that can go on."""

import errno
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from cli_table import files, fit_words

FULL = OSError(errno.ENOSPC, "No space left on device")


def full(*_: object, **__: object) -> None:
    raise FULL


def full_for(name: str, write):
    """`write`, but the disk is full for files whose name holds `name`."""

    def wrapped(path, *arguments, **options):
        if name in Path(path).name:
            raise FULL
        return write(path, *arguments, **options)

    return wrapped


def says_full(called) -> None:
    assert called.code == 1
    message = called.err.strip().splitlines()[-1]
    assert "disk is full" in message
    assert "did not expect" not in message
    assert "Traceback" not in called.err


def is_whole(run: Path) -> bool:
    document = json.loads((run / "run.json").read_text())
    return document["status"] == "complete" and not (run / "work").exists() and (run / "report.html").is_file()


def resumes(motet, words: list[str], run: Path) -> None:
    """Whatever the full disk left is either nothing or an unfinished run, and --resume makes it whole."""
    if run.exists() and any(run.iterdir()):
        assert json.loads((run / "run.json").read_text())["status"] == "unfinished"
        assert not list(run.rglob("*.part"))
    assert motet(*words, "--resume").code == 0
    assert is_whole(run)


def test_full_when_tensors_are_written(motet, table_file, tmp_path, monkeypatch):
    out = tmp_path / "run"
    words = fit_words(table_file, out, targets=("price", "sold"))
    with monkeypatch.context() as patch:
        patch.setattr("motet.train._files.save_file", full)
        says_full(motet(*words))
    resumes(motet, words, out)


@pytest.mark.parametrize("name", ["run.json", "metrics.json", "log.jsonl"])
def test_full_when_text_is_written(motet, table_file, tmp_path, monkeypatch, name):
    out = tmp_path / "run"
    words = fit_words(table_file, out, targets=("price", "sold"))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full_for(name, Path.write_text))
        says_full(motet(*words))
    resumes(motet, words, out)


def test_full_when_a_line_of_the_log_is_written(motet, table_file, tmp_path, monkeypatch):
    out = tmp_path / "run"
    words = fit_words(table_file, out, targets=("price", "sold"))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full_for("log.jsonl", Path.open))
        says_full(motet(*words))
    resumes(motet, words, out)


def test_full_when_the_report_is_written(motet, table_file, tmp_path, monkeypatch):
    out = tmp_path / "run"
    words = fit_words(table_file, out, targets=("price", "sold"))
    with monkeypatch.context() as patch:
        for write in ("write_bytes", "write_text"):
            patch.setattr(Path, write, full_for("report.html", getattr(Path, write)))
        called = motet(*words)
    says_full(called)
    assert f"only the report is missing: motet report {out}" in called.err
    assert not (out / "report.html").exists()
    assert motet("report", out).code == 0
    assert is_whole(out)


def test_full_when_the_run_is_marked_complete(motet, table_file, tmp_path, monkeypatch):
    """The last write of a fit fails: nothing may call the run complete."""
    out = tmp_path / "run"
    words = fit_words(table_file, out, targets=("price",))
    write = Path.write_text

    def write_text(path, text, *arguments, **options):
        if '"status": "complete"' in text[:200]:
            raise FULL
        return write(path, text, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", write_text)
        says_full(motet(*words))
    called = motet("predict", out, table_file, "-o", tmp_path / "out.csv")
    assert called.code == 1
    assert "--resume" in called.err
    resumes(motet, words, out)


def test_full_when_predictions_are_written(motet, finished, table_file, tmp_path, monkeypatch):
    output = tmp_path / "out.parquet"
    output.write_bytes(b"yesterday")
    monkeypatch.setattr("polars.DataFrame.write_parquet", full)
    called = motet("predict", finished, table_file, "-o", output)
    says_full(called)
    assert files(tmp_path) == {"out.parquet": b"yesterday"}


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 40 kB, where the tests may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    asked = [mount or "mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", str(place)]
    if mount is None or subprocess.run(asked, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs rights that these tests do not have")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_is_really_full(motet, table_file, small_disk):
    out = small_disk / "run"
    words = fit_words(table_file, out, targets=("price", "sold"))
    called = motet(*words)
    says_full(called)
    says_full(motet(*words, "--resume"))
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    resumes(motet, words, out)


def test_predictions_on_a_disk_that_is_really_full(motet, finished, table_file, small_disk):
    (small_disk / "filler").write_bytes(bytes(32 * 1024))
    called = motet("predict", finished, table_file, "-o", small_disk / "out.csv", "--probabilities", "--intervals")
    says_full(called)
    assert [path.name for path in small_disk.iterdir()] == ["filler"]
