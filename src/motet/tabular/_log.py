"""The log of a fit: shown as it grows, and kept with the run."""

import contextlib
import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from motet.train import Clock, Display, append_line, replacing


class RunLog:
    """Hands each record to the display and, in a run, to `log.jsonl`; a resumed run goes on where the file ends.

    Several threads may write to it.
    """

    def __init__(self, display: Display, path: Path | None, clock: Clock) -> None:
        self.display = display
        self.path = path
        self.clock = clock
        self.records: list[dict[str, Any]] = []
        self._one_at_a_time = threading.Lock()
        if path is not None and path.is_file():
            self.records = read_log(path)
            clock.spent = max((record.get("elapsed", 0.0) for record in self.records), default=0.0)

    def __call__(self, record: Mapping[str, Any]) -> None:
        with self._one_at_a_time:
            record = dict(record) | {"elapsed": round(self.clock.elapsed, 2)}
            self.records.append(record)
            if self.path is not None:
                append_line(self.path, record)
            self.display(record)

    def close(self) -> None:
        self.display.close()

    def unique(self) -> list[dict[str, Any]]:
        """The records; of those that an interrupted call wrote and a later call wrote again, the later."""
        last = {
            json.dumps([record["event"], record.get("stage"), record.get("step")]): record for record in self.records
        }
        return list(last.values())


def read_log(path: Path) -> list[dict[str, Any]]:
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(json.JSONDecodeError):  # a kill may cut the last line short
            records.append(json.loads(line))
    return records


def write_log(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    with replacing(path) as temporary:
        temporary.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
