"""Time: limits that are kept, and what was spent."""

import threading
import time
from dataclasses import dataclass, field


@dataclass
class Clock:
    """Seconds since the start and until the limit; `spent` brings in the seconds of an earlier, interrupted call.

    Args:
        limit: seconds of wall time allowed, or None for no limit.
        spent: seconds already used before this process.
        stopped: set by `stop`, from any thread; the clock's parts share it.
    """

    limit: float | None = None
    spent: float = 0.0
    started: float = field(default_factory=time.monotonic)
    stopped: threading.Event = field(default_factory=threading.Event, repr=False, compare=False)

    @property
    def elapsed(self) -> float:
        """Seconds used so far."""
        return self.spent + time.monotonic() - self.started

    @property
    def left(self) -> float:
        """Seconds until the limit, at least 0; infinite without a limit, none once it is stopped."""
        if self.stopped.is_set():
            return 0.0
        return float("inf") if self.limit is None else max(0.0, self.limit - self.elapsed)

    @property
    def part_used(self) -> float:
        """How much of the limit is used, 1 at its end; 0 without a limit."""
        if self.limit is None:
            return 0.0
        return self.elapsed / self.limit if self.limit > 0 else 1.0

    def add_spent(self, seconds: float) -> None:
        """Brings in what an interrupted call had spent and already been given: the time left stays the same."""
        self.spent += seconds
        if self.limit is not None:
            self.limit += seconds

    def part(self, share: float) -> "Clock":
        """A clock that starts now with a share of what is left."""
        return Clock(None if self.limit is None else self.left * share, stopped=self.stopped)

    def stop(self) -> None:
        """Brings the clock and all its parts to their end."""
        self.stopped.set()


@dataclass
class Cost:
    """What one candidate cost: wall seconds, CPU seconds of its thread, rows passed through a network or trees."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    rows: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.seconds + other.seconds, self.cpu_seconds + other.cpu_seconds, self.rows + other.rows)


class Meter:
    """Measures wall seconds, and CPU seconds of the thread that made it, from its making on.

    Trainings run beside each other: the process's seconds would be everybody's. What a library's own threads do for
    the one that waits for them is not counted.
    """

    def __init__(self) -> None:
        self._wall = time.monotonic()
        self._cpu = time.thread_time()

    def read(self, rows: int = 0) -> Cost:
        """The cost until now."""
        return Cost(time.monotonic() - self._wall, time.thread_time() - self._cpu, rows)
