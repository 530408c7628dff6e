"""Writing files so that a kill or a full disk never leaves a half-written one in place of a good one."""

import contextlib
import errno
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from motet._errors import RunError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside `path`, and moves it there once the block has ended without an error.

    Raises:
        RunError: the disk is full, or the folder cannot be written to.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise RunError(_explain(path, error)) from error
    except Exception as error:
        # safetensors reports a failed write as an error of its own with the system's words inside.
        if "No space left" in str(error) or "os error 28" in str(error):
            raise RunError(_explain(path, OSError(errno.ENOSPC, "No space left on device"))) from error
        raise
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Writes one JSON document, whole or not at all."""
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def append_line(path: Path, document: Mapping[str, Any]) -> None:
    """Adds one JSON document as a line at the end of a file.

    Raises:
        RunError: the disk is full, or the file cannot be written to.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(document) + "\n")
    except OSError as error:
        raise RunError(_explain(path, error)) from error


def read_json(path: Path) -> dict[str, Any]:
    """Reads one JSON document.

    Raises:
        RunError: the file is missing or damaged, or holds something other than a JSON object.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        message = (
            f"'{path}' is missing; a run directory has it. Was the run finished? Try the same command with --resume."
        )
        raise RunError(message) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        message = f"'{path}' is not valid JSON ({error}). The file is damaged: restore it from a copy, or fit again."
        raise RunError(message) from error
    if not isinstance(document, dict):
        message = f"'{path}' holds no JSON object. The file is damaged: restore it from a copy, or fit again."
        raise RunError(message)
    return document


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Writes a safetensors file, whole or not at all."""
    contiguous = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        save_file(contiguous, temporary, metadata=dict(metadata or {}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads a safetensors file and its metadata.

    Raises:
        RunError: the file is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except FileNotFoundError as error:
        message = f"'{path}' is missing; a run directory has it. Restore it from a copy, or fit again."
        raise RunError(message) from error
    except Exception as error:
        message = f"'{path}' cannot be read as safetensors ({error}). Restore it from a copy, or fit again."
        raise RunError(message) from error


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _explain(path: Path, error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return (
            f"The disk is full: '{path}' could not be written, and nothing that was there before is lost. "
            "Free some space, then repeat the command; an unfinished fit goes on with --resume."
        )
    reason = error.strerror or error
    return f"'{path}' could not be written ({reason}). Check that the folder exists and is yours to write."
