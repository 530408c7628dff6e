"""Progress for a person: a live table in a terminal, plain lines elsewhere. Nothing here writes to standard output."""

import sys
import time
from collections.abc import Mapping
from typing import Any, Protocol, Self, TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text


class Display(Protocol):
    """Takes the records of the log as they come."""

    def __call__(self, record: Mapping[str, Any]) -> None:
        """Shows one record."""

    def close(self) -> None:
        """Ends the display."""


class Silent:
    """Shows nothing."""

    def __call__(self, record: Mapping[str, Any]) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""


class PlainLines:
    """One line a stage and an evaluation, for logs and pipes.

    Args:
        stream: where to; standard error when None.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self.started = time.monotonic()

    def __call__(self, record: Mapping[str, Any]) -> None:
        """Writes a line for a stage or an evaluation; other records are for the log alone."""
        text = describe(record)
        if text:
            print(f"[{time.monotonic() - self.started:6.1f}s] {text}", file=self.stream, flush=True)

    def close(self) -> None:
        """Does nothing: every line is already out."""


class LiveTable:
    """A table of tasks that fills while models train.

    Args:
        console: a terminal; standard error when None.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self.started = time.monotonic()
        self.scores: dict[str, dict[str, str]] = {}
        self.stages: list[str] = []
        self.now = ""
        self.live = Live(console=self.console, refresh_per_second=4, transient=True)
        self.live.start()

    def __call__(self, record: Mapping[str, Any]) -> None:
        """Puts one record into the table."""
        if record["event"] == "evaluate":
            stage = record["stage"].split(":")[0]
            if stage not in self.stages:
                self.stages.append(stage)
            for task, score in record["scores"].items():
                mark = " *" if task in record.get("better", ()) else ""
                self.scores.setdefault(task, {})[stage] = "-" if score is None else f"{score:.4f}{mark}"
        text = describe(record)
        if text:
            self.now = text
            if record["event"] == "stage":
                self.live.console.print(
                    f"[{time.monotonic() - self.started:6.1f}s] {text}", highlight=False, markup=False
                )
        self.live.update(self._table())

    def close(self) -> None:
        """Takes the table away."""
        self.live.stop()

    def _table(self) -> Table:
        table = Table(caption=Text(self.now), caption_justify="left", expand=False)
        table.add_column("target")
        for stage in self.stages:
            table.add_column(stage.replace("_", " "), justify="right")
        for task, row in self.scores.items():
            table.add_row(Text(task), *(row.get(stage, "") for stage in self.stages))
        return table

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def describe(record: Mapping[str, Any]) -> str:
    """One line about a record, or nothing where a person needs none."""
    if record["event"] in {"stage", "note"}:
        return str(record["text"])
    if record["event"] != "evaluate":
        return ""
    shown = list(record["scores"].items())[:8]
    scores = "  ".join(f"{task} {'-' if score is None else format(score, '.4f')}" for task, score in shown)
    more = len(record["scores"]) - len(shown)
    return f"{record['stage']} epoch {record['epoch']:.1f}  {scores}" + (f"  and {more} more" if more else "")
