"""`motet methods`."""

import importlib
import inspect
from collections.abc import Mapping
from typing import Annotated

from cyclopts import Parameter

from motet._errors import RequestError, suggest
from motet.cli._output import Common, print_json, print_table

ROOMS = {
    "balance": "motet.balance",
    "merge": "motet.merge",
    "sharing": "motet.models.sharing",
    "adapters": "motet.models.adapters",
    "tasks": "motet.tasks",
}


def methods(
    *,
    room: Annotated[str | None, Parameter(help="Only this room: balance, merge, sharing, adapters or tasks.")] = None,
    common: Common = Common(),  # noqa: B008
) -> None:
    """List the methods that motet knows: what each is for, and where it comes from."""
    if room is not None and room not in ROOMS:
        message = f"There is no room '{room}' with methods.{suggest(room, ROOMS)}"
        raise RequestError(message)
    found = [entry for name in ROOMS if room in (None, name) for entry in _entries(name)]
    if common.json:
        print_json({"methods": found})
    else:
        columns = ("room", "use", "summary", "source")
        rows = [tuple(entry[column] for column in columns) for entry in found]
        print_table(["room", "name", "what it does", "source"], rows)


def _entries(room: str) -> list[dict[str, str]]:
    module = importlib.import_module(ROOMS[room])
    around: Mapping[str, type] = module.wrappers() if room == "balance" else {}
    found: Mapping[str, type] = module.KINDS if room == "tasks" else {**module.methods(), **around}
    return [
        {
            "room": room,
            "name": name,
            "use": f"{name}+METHOD" if name in around else name,
            "summary": _summary(kind),
            "source": _source(kind),
        }
        for name, kind in found.items()
    ]


def _summary(kind: type) -> str:
    return (inspect.getdoc(kind) or "").split("\n\n")[0].replace("\n", " ")


def _source(kind: type) -> str:
    _, found, source = (inspect.getdoc(kind) or "").partition("Source:")
    return " ".join(source.split("\n\n")[0].split()) if found else ""
