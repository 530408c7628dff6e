"""Which sharing architecture a small table's shared network gets: short trainings, of which the better half go on."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from motet.tabular._candidates import Plan
from motet.tabular._log import read_log, write_log
from motet.tabular._network import loop_for, shape_for, train_network
from motet.tabular._prepared import Prepared
from motet.train import Clock, Emit, append_line

# In the order of what they have gained on real tables: when the clock runs out, what comes last was not tried.
ARCHITECTURES = ("hard", "mmoe", "ple", "home", "multitab-net")
RUNGS = (8, 4)  # parts of the full number of epochs; each rung takes the better half of the one before
LEAST_GAIN = 0.01  # of skill, by which another architecture must be better than the one that was asked for
MOST_TOKENS = 60_000  # rows times columns up to which tokens are tried: their cost is many times the others'
LEAST_SECONDS = 1e-3  # a row, for both trials of an architecture: a shorter one says nothing
OVERHEAD = 2.0  # seconds more, to build the networks


class Journal:
    """The finished trials of a run, kept in a file, so that a resumed fit repeats none.

    Args:
        path: the file, one JSON document a line, or None to keep nothing. A line that a kill cut short is dropped.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.records: list[dict[str, Any]] = []
        if path is not None and path.is_file():
            self.records = read_log(path)
            write_log(path, self.records)  # or the next line would be added to half a line

    def find(self, asked: Mapping[str, Any]) -> dict[str, Any] | None:
        """The finished trial that was asked for in these words."""
        return next((one for one in self.records if asked.items() <= one.items()), None)

    def add(self, record: dict[str, Any]) -> dict[str, Any]:
        """Keeps a finished trial."""
        self.records.append(record)
        if self.path is not None:
            append_line(self.path, record)
        return record


@dataclass(frozen=True)
class Trials:
    """Tries architectures on a table by successive halving over epochs, and says which is to be trained in full.

    Choose it over Optuna's study, storage and pruner for what this is: a handful of named settings, known beforehand,
    whose trials come one after the other.

    Args:
        prepared: the table; trials learn its train rows and are scored on its stop rows, and see no others.
        plan: how networks are trained.
        journal: finished trials.
        emit: takes the records of the log.

    Cost: with five architectures and two rungs 5/8 + 2/4 of a full training of the shared network.

    Source: Jamieson and Talwalkar, Non-stochastic best arm identification (AISTATS 2016), halving. Departures: each
        rung trains anew, since the learning rate comes down to zero within it; and the architecture that was asked for
        stays unless another is better by a hundredth of the way from the best constant to perfection.
    """

    prepared: Prepared
    plan: Plan
    journal: Journal
    emit: Emit

    def best(self, clock: Clock) -> Plan:
        """The plan with the architecture that came out best; the plan itself where nothing was tried."""
        names = self._names()
        least = OVERHEAD + LEAST_SECONDS * len(self.prepared.split.train)
        if len(names) < 2 or clock.left < len(names) * least:
            return self.plan
        text = f"Trying {len(names)} sharing architectures: {', '.join(names)}"
        self.emit({"event": "stage", "stage": "trials", "text": text})
        scores: dict[str, float] = {}
        for number, part in enumerate(RUNGS):
            rung = clock.part(1.0 / (len(RUNGS) - number))
            scores = {
                name: self._score(name, part, rung.part(1.0 / (len(names) - place))) for place, name in enumerate(names)
            }
            names = sorted(names, key=lambda name: -scores[name])[: max(2, len(names) // 2)]
            if self.plan.sharing not in names:
                names.append(self.plan.sharing)
        best = max(scores, key=lambda name: scores[name])
        if scores[best] - scores[self.plan.sharing] < LEAST_GAIN:
            return self.plan
        return replace(self.plan, sharing=best, sharing_settings=None)

    def _names(self) -> list[str]:
        """What is tried; only what was asked for where its settings were given too, or where there is one target."""
        if self.plan.sharing_settings or self.plan.sharing != "hard" or len(self.prepared.tasks) < 2:
            return [self.plan.sharing]
        columns = len(self.prepared.encoder.number_names) + len(self.prepared.encoder.category_names)
        small = len(self.prepared.split.train) * columns <= MOST_TOKENS
        return [name for name in ARCHITECTURES if small or name != "multitab-net"]

    def _score(self, name: str, part: int, clock: Clock) -> float:
        """The mean skill on the stop rows after a part of the epochs."""
        asked = {"candidate": "shared", "name": name, "part_of_epochs": 1 / part}
        found = self.journal.find(asked) or self.journal.add(asked | self._try(name, part, clock))
        return -np.inf if found["score"] is None else found["score"]

    def _try(self, name: str, part: int, clock: Clock) -> dict[str, Any]:
        prepared, plan = self.prepared, self.plan
        settings = loop_for(
            len(prepared.split.train), max_epochs=plan.max_epochs, seed=plan.seed, least_batch=plan.least_batch
        )
        network = train_network(
            prepared, prepared.tasks, shape=shape_for(prepared, name), balance=plan.balance,
            settings=replace(settings, max_epochs=max(1, settings.max_epochs // part)), clock=clock,
            stage=f"trial:{name}", emit=_silent, device=plan.device,
        )  # fmt: skip
        skill, cost = network.trained.best.joint_skill, network.trained.cost
        return {
            "score": round(float(skill), 6) if np.isfinite(skill) else None, "metric": "mean skill",
            "seconds": round(cost.seconds, 3), "epochs": round(network.trained.epochs, 2),
        }  # fmt: skip


def _silent(_: object) -> None:
    """Takes a record and says nothing."""


def tried(journal: Journal, chosen: str) -> list[dict[str, Any]]:
    """The trials as the run's document tells them."""
    return [one | {"kept": one["name"] == chosen} for one in journal.records]
