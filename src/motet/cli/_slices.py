"""What `motet evaluate --by` prints."""

from pathlib import Path
from typing import TYPE_CHECKING

from motet.cli._output import print_json, print_table, print_text

if TYPE_CHECKING:
    import polars as pl


def show_slices(run: Path, table: str, by: str, found: "pl.DataFrame", *, as_json: bool, is_kept: bool) -> None:
    """Prints each target's score on each slice, and names the worst.

    Args:
        run: the run's folder.
        table: the table's path.
        by: the column.
        found: what `TabularModel.slices` gave.
        as_json: print one document.
        is_kept: whether the run has them now, for its report.
    """
    if as_json:
        print_json({"run": str(run), "table": table, "by": by, "slices": found.to_dicts()})
        return
    rows = [
        (row["target"], row["slice"], f"{row['rows']:,}", row["metric"],
         f"{_shown(row['score'])} [{_shown(row['low'])}, {_shown(row['high'])}]", _shown(row["worse_by"]))
        for row in found.iter_rows(named=True)
    ]  # fmt: skip
    print_table(["target", by, "rows", "metric", "score [95%]", "worse than the others by"], rows)
    for row in found.iter_rows(named=True):
        if row["worst"]:
            luck = "more than luck explains" if row["proven"] else "which may be luck: some slice must be the worst"
            print_text(
                f"{row['target']} is worst where {by} is {row['slice']}: {row['metric']} {_shown(row['score'])}, "
                f"{_shown(row['worse_by'])} worse than on the other rows, {luck}."
            )
    if is_kept:
        print_text(f"Kept in the run; its report draws them from now on: motet report {run}")


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
