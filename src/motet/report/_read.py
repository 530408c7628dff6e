"""Reads and checks a run directory: run.json, metrics.json and log.jsonl."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from motet._errors import RequestError, RunError

FORMAT = 1
_RUN_KEYS: Mapping[str, type] = {"status": str, "tasks": list}
_METRICS_KEYS: Mapping[str, type] = {"tasks": dict}
_KINDS = {str: "a string", list: "a list", dict: "an object"}


@dataclass(frozen=True)
class Run:
    """What a run directory says about itself, as plain JSON data.

    Args:
        path: the directory.
        about: `run.json`.
        metrics: `metrics.json`.
        log: the documents of `log.jsonl`, oldest first.
        torn: lines of `log.jsonl` that are not JSON objects; a killed run leaves one.
        effects: `effects.json`, where `motet effects` has left one.
        slices: `slices.json`, where `motet evaluate --by` has left one.
    """

    path: Path
    about: dict[str, Any]
    metrics: dict[str, Any]
    log: list[dict[str, Any]]
    torn: int
    effects: dict[str, Any] = field(default_factory=dict[str, Any])
    slices: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def has_tasks(self) -> bool:
        """Whether the table had a task column: then `metrics.json` has an entry for each task of the one target."""
        return self.metrics.get("form") == "task_column"

    @property
    def name(self) -> str:
        """The directory's own name."""
        return self.path.resolve().name

    def part(self, key: str) -> dict[str, Any]:
        """The object under `key` of run.json, empty where there is none."""
        value = self.about.get(key)
        return value if isinstance(value, dict) else {}

    def rows(self, key: str) -> list[dict[str, Any]]:
        """The objects in the list under `key` of run.json, empty where there is none."""
        return objects(self.about.get(key))


def objects(value: object) -> list[dict[str, Any]]:
    """The objects in `value` when it is a list, else none: a report shows what is there."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def read_run(path: Path) -> Run:
    """Reads the run directory `path`.

    Args:
        path: the directory that `motet fit … --out` wrote.

    Raises:
        RequestError: `path` is not a run directory.
        RunError: the run is unfinished, damaged, or of another format.
    """
    if not path.is_dir():
        what = "is a file" if path.is_file() else "does not exist"
        message = f"'{path}' {what}; expected a run directory. Give the folder that 'motet fit ... --out' wrote."
        raise RequestError(message)
    if not (path / "run.json").is_file():
        message = (
            f"'{path}' is not a run directory: it has no run.json. Give the folder that 'motet fit ... --out' wrote."
        )
        raise RequestError(message)
    about = _document(path / "run.json", {"status": str})  # an unfinished run has little more than that
    if about["status"] != "complete":
        message = (
            f"'{path / 'run.json'}', key 'status', says '{about['status']}'; a report needs a complete run. "
            f"Finish it with the command that began it and --resume: motet fit ... --out {path} --resume"
        )
        raise RunError(message)
    about = _document(path / "run.json", _RUN_KEYS)
    metrics = _document(path / "metrics.json", _METRICS_KEYS)
    log, torn = _lines(path / "log.jsonl")
    return Run(path, about, metrics, log, torn, _extra(path / "effects.json"), _extra(path / "slices.json"))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        message = f"'{path}' is missing, so the run is damaged. Copy the whole run directory again, or fit again."
        raise RunError(message) from error
    except (OSError, UnicodeDecodeError) as error:
        message = f"'{path}' cannot be read as UTF-8 text: {error}. Copy the run directory again, or fit again."
        raise RunError(message) from error


def _document(path: Path, keys: Mapping[str, type]) -> dict[str, Any]:
    try:
        document = json.loads(_text(path))
    except ValueError as error:
        message = f"'{path}' is damaged: not JSON, {error}. Copy the run directory again, or fit again."
        raise RunError(message) from error
    if not isinstance(document, dict):
        message = f"'{path}' holds {type(document).__name__}; expected a JSON object. Copy the run again, or fit again."
        raise RunError(message)
    if document.get("format") != FORMAT:
        message = (
            f"'{path}', key 'format', is {document.get('format')!r}; this motet reads format {FORMAT}. "
            "Use the motet version that wrote the run (run.json, key 'motet'), or fit again."
        )
        raise RunError(message)
    for key, kind in keys.items():
        check(path.name, key, document.get(key), kind)
    return document


def _extra(path: Path) -> dict[str, Any]:
    """What another command left in the run; a damaged one is left out, since the report stands without it."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) and document.get("format") == FORMAT else {}


def check(file: str, key: str, value: object, kind: type) -> None:
    """Refuses a key of `file` whose value is missing or of another type than `kind`.

    Raises:
        RunError: it is.
    """
    if not isinstance(value, kind):
        message = (
            f"{file}, key '{key}', is {_short(value)}; expected {_KINDS[kind]}. "
            "The run is damaged: copy the run directory again, or fit again."
        )
        raise RunError(message)


def _short(value: object) -> str:
    return "missing" if value is None else repr(value)[:60]


def _lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The log's documents. A torn line is counted, not refused: the log proves nothing, and a kill may tear one."""
    if not path.exists():
        return [], 0
    log: list[dict[str, Any]] = []
    torn = 0
    for line in _text(path).split("\n"):
        if not line.strip():
            continue
        try:
            document = json.loads(line)
        except ValueError:
            document = None
        if isinstance(document, dict):
            log.append(document)
        else:
            torn += 1
    return log, torn
