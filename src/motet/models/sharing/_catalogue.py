"""Every architecture in this room, found by walking it."""

import inspect
import json
from collections.abc import Mapping
from typing import Any

from motet._discovery import named_classes
from motet._errors import RequestError, suggest
from motet.models.sharing._sharing import Sharing


def methods() -> dict[str, type[Sharing]]:
    """Each architecture by the name that selects it in files and on the command line."""
    return named_classes("motet.models.sharing", Sharing)


def settings_of(name: str, chosen: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Every setting of the architecture called `name` as plain JSON data: its default, or what was chosen.

    Args:
        name: as `methods` lists it.
        chosen: keyword arguments of the class, in the place of its defaults.

    Raises:
        RequestError: there is no architecture of that name, it has no such setting, or a setting is no JSON data.
    """
    known = methods()
    if name not in known:
        message = f"There is no sharing architecture '{name}'.{suggest(name, known)} `motet methods` lists them."
        raise RequestError(message)
    parameters = inspect.signature(known[name]).parameters.values()
    defaults = {part.name: part.default for part in parameters if part.name not in {"num_tasks", "width"}}
    for setting, value in (chosen or {}).items():
        if setting not in defaults:
            message = f"The sharing architecture '{name}' has no setting '{setting}'.{suggest(setting, defaults)}"
            raise RequestError(message)
        try:
            json.dumps(value)
        except TypeError as error:
            message = (
                f"The setting '{setting}' of '{name}' is {value!r}; numbers, texts, lists and tables of them were "
                "expected, so that a run can record it. Write it so."
            )
            raise RequestError(message) from error
    return json.loads(json.dumps(defaults | dict(chosen or {})))


def from_name(name: str, num_tasks: int, *, width: int, settings: Mapping[str, Any] | None = None) -> Sharing:
    """Builds the architecture called `name` with its defaults, or with `settings` in their place.

    Args:
        name: as `methods` lists it.
        num_tasks: T.
        width: F, the size of the features it is to take.
        settings: keyword arguments of the class.

    Raises:
        RequestError: there is no architecture of that name, or it has no such setting.
    """
    arguments = settings_of(name, settings)
    build: Any = methods()[name]
    return build(num_tasks, width=width, **arguments)
