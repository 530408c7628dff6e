"""What commands print: one JSON document or a text for a person on standard output, all else on standard error."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from cyclopts import Parameter


@Parameter(name="*")
@dataclass(frozen=True)
class Common:
    """What every command takes.

    Args:
        json: print one JSON document on standard output.
        seed: of everything that is random.
    """

    json: Annotated[bool, Parameter(negative="", help="Print one JSON document.")] = False
    seed: Annotated[int, Parameter(help="Seed of everything random.")] = 0


def fail(message: str, code: int, *, as_json: bool) -> int:
    """Prints an error and gives back the exit code."""
    if as_json:
        print_json({"error": message, "exit_code": code})
    print(f"motet: {message}", file=sys.stderr)
    return code


def print_json(document: Mapping[str, Any]) -> None:
    """Prints the one document of a `--json` call."""
    print(json.dumps(document, indent=1, ensure_ascii=False, default=str))


def print_text(text: str) -> None:
    """Prints a text for a person."""
    print(text)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Prints a table for a person."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_edge=False, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    Console(soft_wrap=not sys.stdout.isatty(), width=None if sys.stdout.isatty() else 160).print(table)
