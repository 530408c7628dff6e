"""A run directory on disk, from documents that a test may change first."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flights_run import ABOUT, METRICS, events


@pytest.fixture
def about() -> dict[str, Any]:
    return copy.deepcopy(ABOUT)


@pytest.fixture
def metrics() -> dict[str, Any]:
    return copy.deepcopy(METRICS)


Build = Callable[..., Path]


@pytest.fixture
def build(tmp_path: Path, about: dict[str, Any], metrics: dict[str, Any]) -> Build:
    """Writes a run directory from the fixtures' documents, which a test may have changed."""

    def write(log: list[dict[str, Any]] | None = None, name: str = "run") -> Path:
        run = tmp_path / name
        run.mkdir()
        (run / "run.json").write_text(json.dumps(about), encoding="utf-8")
        (run / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
        lines = events(list(metrics["tasks"])) if log is None else log
        (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        return run

    return write
