"""Measured cost and quality, where there are results: `balance.json`, and the grids of `motet bench balance`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COST, QUALITY, LONG = "balance.json", "bench_balance.json", "bench_balance_long.json"
MODES = {
    "": "losses alone",
    "exact": "`shared=`",
    "sketch": "`shared=`, sketched",
    "features": "`features=`",
    "own rows": "`shared=`, each row of one task",
    "own forwards": "`shared=`, a forward pass a task",
}


@dataclass(frozen=True)
class Measured:
    """The results that lie in the repository; empty where a file does not exist.

    Args:
        cost: CPU time of a step as a ratio to one plain step of the sum, and the memory that it adds.
        quality: Δm of every method on every problem, and the published claims tried there.
        long: the same of some methods, with ten times the steps.
    """

    cost: dict[str, Any]
    quality: dict[str, Any]
    long: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> "Measured":
        """Reads what is there."""
        return cls(*(_read(folder / name) for name in (COST, QUALITY, LONG)))

    def cost_cells(self, name: str) -> list[tuple[str, dict[str, Any]]]:
        """How the method was called, and the cell, for each cell of the method that was measured."""
        cells = [(cell["way"].partition(" "), cell) for cell in self.cost.get("cells", []) if "ratio" in cell]
        return [(MODES.get(mode, mode), cell) for (way, _, mode), cell in cells if way == name]

    def entries(self, name: str) -> dict[str, dict[str, dict[str, Any]]]:
        """By method, by problem: what was measured of the method, and of it around others."""
        found = self.quality.get("methods", {})
        return {method: found[method] for method in found if method == name or method.startswith(f"{name}+")}

    def claims(self, name: str) -> list[dict[str, Any]]:
        """Published claims of the method, and of it around others, as they came out here."""
        longer = [{**claim, "problem": f"{claim['problem']}, ten times the steps"} for claim in _claims(self.long)]
        return [
            claim
            for claim in [*_claims(self.quality), *longer]
            if claim["better"] == name or claim["better"].startswith(f"{name}+")
        ]

    @property
    def cost_words(self) -> str:
        """How costs were measured."""
        return f"CPU time as a ratio to one plain step of the sum of losses (`{self.cost['command']}`)"

    @property
    def quality_words(self) -> str:
        """What the columns of measured quality are."""
        problems, seeds = ", ".join(self.quality["problems"]), len(self.quality["seeds"])
        return (
            "Δm is the gain over training each task alone in percent, more is better; time is the processor's, as a "
            f"ratio to equal weighting. Problems: {problems}; {seeds} seeds, budget `{self.quality['budget']}` "
            f"(`benchmarks/results/{QUALITY}` holds the command)."
        )

    def overall(self, name: str) -> tuple[float | None, float | None]:
        """The mean Δm over the problems and the time as a ratio to equal weighting."""
        entry = self.quality.get("overall", {}).get(name, {})
        return entry.get("mean_delta_m"), entry.get("cpu_ratio")


def _claims(result: dict[str, Any]) -> list[dict[str, Any]]:
    return result.get("claims", [])


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def shown_gain(gain: dict[str, Any] | None) -> str:
    """Δm with its interval."""
    if gain is None:
        return "–"
    interval = gain.get("ci95")
    return f"{gain['mean']:+.2f}" + (f" [{interval[0]:+.2f}, {interval[1]:+.2f}]" if interval else "")


def shown(value: float | None, form: str) -> str:
    """A number, or a dash where there is none."""
    return "–" if value is None else format(value, form)
