"""What `run.json` says of a fit: what was asked for, of which table, and what was decided."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import polars as pl
import torch

from motet import __version__
from motet.data import fingerprint
from motet.tabular._catboost import is_installed
from motet.tabular._outcome import plain
from motet.tabular._prepared import Prepared
from motet.tabular._settings import FitSettings
from motet.tasks import Task

PACKAGES = ("torch", "numpy", "polars", "lightgbm", "safetensors")


def request_document(
    table: Any, frame: pl.DataFrame, targets: Sequence[Task | str], settings: FitSettings, **asked: Any
) -> dict[str, Any]:
    """What a resumed fit must ask for too: the table, the targets, and everything else that decides the result."""
    source = str(table) if isinstance(table, (str, Path)) else type(table).__name__
    request = {
        "source": Path(source).name,
        "fingerprint": fingerprint(frame),
        "targets": [target if isinstance(target, str) else target.to_dict() for target in targets],
        **{name: dict(value) if isinstance(value, Mapping) else value for name, value in asked.items()},
        "settings": asdict(settings),
    }
    return json.loads(json.dumps(request, default=str))


def run_document(
    frame: pl.DataFrame, prepared: Prepared, request: Mapping[str, Any], notes: Sequence[str], device: torch.device
) -> dict[str, Any]:
    """What was decided, as plain JSON data; the served model adds its own part."""
    split = prepared.split
    return plain({
        "motet": __version__,
        "seed": request["seed"],
        "time_limit": request["time_limit"],
        "versions": _versions(request),
        "machine": {"system": platform.system(), "processor": platform.machine(), "cores": os.cpu_count(),
                    "device": device.type},
        "data": {"source": request["source"], "fingerprint": request["fingerprint"],
                 "rows": frame.height, "columns": frame.width},
        "split": {"how": split.how, "column": request["split_column"]} | {
            name: len(getattr(split, name)) for name in ("train", "stop", "choose", "test")
        },
        "settings": request["settings"],
        "schema": prepared.schema.to_dict(),
        "leaks": [asdict(leak) for leak in prepared.leaks],
        "notes": list(notes),
    })  # fmt: skip


def _versions(request: Mapping[str, Any]) -> dict[str, str]:
    """Of Python, and of the packages that decide the result."""
    settings = request["settings"]
    others = ("catboost",) if settings.get("deploy") == "best" and settings["catboost"] and is_installed() else ()
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in (*PACKAGES, *others)}
