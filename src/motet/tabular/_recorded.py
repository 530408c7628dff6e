"""A fit's run directory and log, from its beginning to its end."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from motet._errors import MotetError
from motet.tabular._log import RunLog
from motet.train import Clock, Display, RunDirectory, Silent


@contextmanager
def recorded(
    out: str | Path | None, request: Mapping[str, Any], clock: Clock, display: Display | None, *, resume: bool
) -> Iterator[tuple[RunDirectory | None, RunLog]]:
    """Opens the run directory, where there is to be one, and the log; closes the log at the end.

    A refused request leaves no run directory in which no work has been done, so that a corrected one can use it.
    """
    run = None if out is None else RunDirectory.create(out, request, resume=resume)
    log = RunLog(display or Silent(), None if run is None else run.path / "log.jsonl", clock)
    try:
        yield run, log
    except MotetError:
        if run is not None and run.work.is_dir() and not any(run.work.iterdir()):
            shutil.rmtree(run.path, ignore_errors=True)
        raise
    finally:
        log.close()
