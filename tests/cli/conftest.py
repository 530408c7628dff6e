"""What the command-line tests share: one table, one finished run, and a way to call a command in this process."""

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from cli_table import fit_words, mixed_table

from motet.cli import main


@dataclass(frozen=True)
class Called:
    """What one command gave."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """Standard output as one JSON document; fails where it holds anything more."""
        return json.loads(self.out)


Call = Callable[..., Called]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Small fits are fastest on one thread; and `motet fit` takes SIGTERM for itself, which pytest gets back."""
    threads, handler = torch.get_num_threads(), signal.getsignal(signal.SIGTERM)
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def motet(capsys: pytest.CaptureFixture[str]) -> Call:
    """Calls a command in this process."""

    def call(*words: object) -> Called:
        capsys.readouterr()
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return Called(code, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def table() -> pl.DataFrame:
    return mixed_table()


@pytest.fixture(scope="session")
def table_file(tmp_path_factory: pytest.TempPathFactory, table: pl.DataFrame) -> Path:
    path = tmp_path_factory.mktemp("table") / "houses.parquet"
    table.write_parquet(path)
    return path


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, table_file: Path) -> Path:
    """A finished run that no test may change."""
    out = tmp_path_factory.mktemp("finished") / "run"
    assert main(fit_words(table_file, out)) == 0
    return out


@pytest.fixture
def run(tmp_path: Path, finished: Path) -> Path:
    """A copy of the finished run, to damage."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def unfinished(tmp_path: Path, table_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose fit was stopped by Ctrl-C as soon as its trees were done."""
    out = tmp_path / "unfinished"

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("motet.tabular._candidates._network", stop)
        assert main(fit_words(table_file, out)) == 1
    return out
