"""The kinds of task by name, for files and for the command line."""

from collections.abc import Mapping
from typing import Any

from motet._errors import RequestError, suggest
from motet.tasks._binary import Binary
from motet.tasks._count import Count
from motet.tasks._multiclass import Multiclass
from motet.tasks._multilabel import Multilabel
from motet.tasks._ordinal import Ordinal
from motet.tasks._quantile import Quantile
from motet.tasks._regression import Regression
from motet.tasks._task import Task, fields_from

KINDS: dict[str, type[Task]] = {
    kind.kind: kind for kind in (Regression, Binary, Multiclass, Multilabel, Ordinal, Count, Quantile)
}


def from_dict(data: Mapping[str, Any]) -> Task:
    """Rebuilds a task from `Task.to_dict`'s data.

    Raises:
        RequestError: the data name no kind of task that is known, or no name.
    """
    name, kind = data.get("name"), data.get("kind")
    if not isinstance(name, str) or not isinstance(kind, str):
        message = f"A task is described by {dict(data)!r}; 'kind' and 'name' were expected in it. Add what is missing."
        raise RequestError(message)
    _check_kind(name, kind)
    found = KINDS[kind]
    return found(**fields_from(data, found))


def parse_target(text: str) -> tuple[str, str | None]:
    """Splits "NAME" or "NAME:KIND" into the name and the kind, None where the schema is to decide.

    The kind is what follows the last colon; a name that holds a colon itself is written with its kind.

    Raises:
        RequestError: no name, or an unknown kind.
    """
    name, colon, kind = text.rpartition(":")
    if not colon:
        name, kind = text, ""
    if not name or (colon and not kind):
        message = f"The target {text!r} was given; NAME or NAME:KIND was expected, such as 'price:regression'."
        raise RequestError(message)
    if not colon:
        return name, None
    _check_kind(name, kind)
    return name, kind


def _check_kind(name: str, kind: str) -> None:
    if kind not in KINDS:
        message = (
            f"Task '{name}' has the kind '{kind}'; one of {', '.join(KINDS)} was expected.{suggest(kind, KINDS)} "
            "A column whose name holds a colon is written with its kind, as in 'a:b:binary'."
        )
        raise RequestError(message)
