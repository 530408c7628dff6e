"""What `motet effects` and `motet evaluate --by` leave in the run for its report to draw."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from motet._errors import RunError

if TYPE_CHECKING:
    import polars as pl

EFFECTS, SLICES = "effects.json", "slices.json"


def keep_effects(
    run: Path, table: str, found: "pl.DataFrame", checks: "pl.DataFrame | None", moved: "pl.DataFrame | None" = None,
    moved_checks: "pl.DataFrame | None" = None,
) -> bool:  # fmt: skip
    """Writes the effects, and what else was asked for, in place of earlier ones; whether that was possible."""
    document: dict[str, Any] = {"table": Path(table).name, "effects": found.to_dicts()}
    for name, part in (("checks", checks), ("attributions", moved), ("attribution_checks", moved_checks)):
        document[name] = None if part is None else part.to_dicts()
    return _write(run / EFFECTS, document)


def keep_slices(run: Path, table: str, by: str, found: "pl.DataFrame") -> bool:
    """Writes the slices by one column beside those by others; whether that was possible."""
    from motet.train import read_json

    try:
        before = read_json(run / SLICES).get("by")
    except RunError:  # there is none yet, or it is damaged and of no use
        before = None
    others = before if isinstance(before, dict) else {}
    return _write(run / SLICES, {"by": {**others, by: {"table": Path(table).name, "slices": found.to_dicts()}}})


def _write(path: Path, document: dict[str, Any]) -> bool:
    from motet.train import write_json

    try:
        write_json(path, {"format": 1, **document})
    except RunError as error:
        # A run that may only be read still answers; its report goes without.
        print(f"motet: {error}", file=sys.stderr)
        return False
    return True
