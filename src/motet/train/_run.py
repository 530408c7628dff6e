"""The run directory: made at the start, marked unfinished until the end, resumable in between."""

import errno
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from motet._errors import RequestError, RunError
from motet.train._files import read_json, write_json

FORMAT = 1


class RunDirectory:
    """One run's folder. Build it with `create`, or `open` for a finished one.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.work = path / "work"

    @classmethod
    def create(cls, path: str | Path, request: Mapping[str, Any], *, resume: bool = False) -> "RunDirectory":
        """Makes the folder for a new run, or takes up an unfinished one.

        Args:
            path: where; it must not exist, be empty, or hold an unfinished run of the same request.
            request: what was asked, as JSON data: a run is resumed only for the same request.
            resume: take up what an earlier, interrupted call left.

        Raises:
            RequestError: the folder holds something else or an unfinished run of another request, or cannot be made.
            RunError: the disk is full.
        """
        run = cls(Path(path))
        if run.path.exists() and not run.path.is_dir():
            message = f"'{path}' is a file; the run needs a folder of its own. Choose another --out."
            raise RequestError(message)
        if run.path.exists() and not run._is_empty():
            run._check_resumable(request, resume=resume)
        try:
            run.path.mkdir(parents=True, exist_ok=True)
            if not run._is_run():
                # The mark comes before anything else, so that a kill here never leaves a folder that is nobody's.
                document = {"format": FORMAT, "status": "unfinished", "created": _now(), "request": request}
                write_json(run.path / "run.json", document)
            run.work.mkdir(exist_ok=True)
            run._sweep()
        except OSError as error:
            message = f"The folder '{path}' cannot be made ({error.strerror}). Choose an --out that you may write to."
            raise (RunError if error.errno == errno.ENOSPC else RequestError)(message) from error
        return run

    @classmethod
    def open(cls, path: str | Path) -> tuple["RunDirectory", dict[str, Any]]:
        """Opens a finished run and reads its `run.json`.

        Raises:
            RequestError: not a run directory, or of a newer format.
            RunError: the run is not finished, or damaged.
        """
        run = cls(Path(path))
        if not run._is_run():
            found = "There is no folder" if not run.path.exists() else "There is no run.json in the folder"
            message = f"{found} '{path}'; a run directory that `motet fit --out` made was expected. Check the path."
            raise RequestError(message)
        document = read_json(run.path / "run.json")
        if document.get("format") != FORMAT:
            message = (
                f"'{path}' has format version {document.get('format')!r}; this motet reads version {FORMAT}. "
                "Update motet, or fit again."
            )
            raise RequestError(message)
        if document.get("status") != "complete":
            message = (
                f"The run in '{path}' is not finished. Run its `motet fit` command again with --resume to finish it."
            )
            raise RunError(message)
        return run, document

    def finish(self, document: Mapping[str, Any]) -> None:
        """Writes `run.json` as complete, then removes what only an unfinished run needs."""
        created = read_json(self.path / "run.json").get("created", _now())
        write_json(self.path / "run.json", {"format": FORMAT, "status": "complete", "created": created, **document})
        shutil.rmtree(self.work, ignore_errors=True)

    def _is_run(self) -> bool:
        return (self.path / "run.json").is_file()

    def _is_empty(self) -> bool:
        """Whether nothing is there, or only the half of a `run.json` that a kill cut short."""
        names = [entry.name for entry in self.path.iterdir()]
        return all(name.startswith(".run.json.") and name.endswith(".part") for name in names)

    def _sweep(self) -> None:
        """Takes away the halves of files that a kill left."""
        for half in self.path.glob(".*.part"):
            half.unlink(missing_ok=True)

    def _check_resumable(self, request: Mapping[str, Any], *, resume: bool) -> None:
        if not self._is_run():
            message = f"The folder '{self.path}' is not empty and holds no run of motet. Choose another --out."
            raise RequestError(message)
        document = read_json(self.path / "run.json")
        if document.get("status") == "complete":
            message = (
                f"'{self.path}' holds a finished run, which is never overwritten. Choose another --out or remove it."
            )
            raise RequestError(message)
        if not resume:
            message = f"'{self.path}' holds an unfinished run. Add --resume to go on with it, or choose another --out."
            raise RequestError(message)
        before = document.get("request", {})
        changed = sorted(key for key in {*before, *request} if before.get(key) != request.get(key))
        if changed:
            message = (
                f"The unfinished run in '{self.path}' was asked for with another {' and '.join(changed)}; "
                "a run is resumed with the same request and table. Repeat the first command, or choose another --out."
            )
            raise RequestError(message)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
