"""Texts of the command line turned into values."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from motet._errors import RequestError, suggest

if TYPE_CHECKING:
    import polars as pl

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(text: str | None) -> float | None:
    """A duration such as `90`, `90s`, `5m` or `1h30m` in seconds.

    Raises:
        RequestError: the text is no duration above zero.
    """
    if text is None:
        return None
    parts = re.findall(r"(\d+(?:\.\d+)?)([smh]?)", text.strip().lower())
    if not parts or "".join(number + unit for number, unit in parts) != text.strip().lower():
        message = f"The time limit {text!r} was given; a duration such as 90s, 5m or 1h30m was expected."
        raise RequestError(message)
    total = sum(float(number) * UNITS[unit or "s"] for number, unit in parts)
    if total <= 0:
        message = f"The time limit {text!r} was given; a duration above zero was expected, such as 5m."
        raise RequestError(message)
    return total


def costs(assignments: Sequence[str]) -> dict[str, tuple[float, float]]:
    """The costs of a false yes and a false no by target, from `NAME=FP:FN` texts.

    Raises:
        RequestError: a text of another form.
    """
    found = {}
    for assignment in assignments:
        name, _, pair = assignment.rpartition("=")
        false_yes, _, false_no = pair.partition(":")
        try:
            pair_of_numbers = float(false_yes), float(false_no)
        except ValueError:
            pair_of_numbers = None
        if not name or pair_of_numbers is None:
            message = f"--cost {assignment!r} was given; NAME=FP:FN was expected, such as --cost churned=1:10."
            raise RequestError(message)
        found[name] = pair_of_numbers
    return found


def roles(assignments: Sequence[str], ignored: Sequence[str]) -> dict[str, str]:
    """The columns' roles from `NAME=ROLE` texts and from the names of ignored columns.

    Raises:
        RequestError: a text without an equals sign.
    """
    found = {}
    for assignment in assignments:
        name, equals, role = assignment.rpartition("=")
        if not equals or not name or not role:
            message = f"--role {assignment!r} was given; NAME=ROLE was expected, such as --role zip=category."
            raise RequestError(message)
        found[name] = role
    return found | dict.fromkeys(ignored, "ignored")


def kept(frame: "pl.DataFrame", names: Sequence[str], table: str, beside: "pl.DataFrame") -> "pl.DataFrame":
    """The columns that `--keep` names, but for those that the predictions have themselves.

    Raises:
        RequestError: the table has no such column.
    """
    for name in names:
        if name not in frame.columns:
            message = f"--keep '{name}' is not a column of '{table}'.{suggest(name, frame.columns)}"
            raise RequestError(message)
    return frame.select([name for name in names if name not in beside.columns])
