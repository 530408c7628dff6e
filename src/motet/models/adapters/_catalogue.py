"""Every adapter in this room, found by walking it; and settings as plain data, for files."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from motet._discovery import named_classes
from motet._errors import RequestError, suggest
from motet.models.adapters._adapter import Adapter


def methods() -> dict[str, type[Adapter]]:
    """Each adapter by its name."""
    return named_classes("motet.models.adapters", Adapter)


def from_name(name: str, settings: Mapping[str, Any] | None = None) -> Adapter:
    """Builds the adapter called `name` with its defaults, or with `settings` in their place.

    Args:
        name: as `methods` lists it.
        settings: keyword arguments of the class; an adapter among them is a table with `name` and `settings`.

    Raises:
        RequestError: there is no adapter of that name, or it has no such setting, or lacks one.
    """
    known = methods()
    if name not in known:
        message = f"There is no adapter '{name}'.{suggest(name, known)} `methods()` lists them."
        raise RequestError(message)
    fields = {field.name: field for field in dataclasses.fields(known[name])}  # pyrefly: ignore
    given = dict(settings or {})
    unknown = [setting for setting in given if setting not in fields]
    if unknown:
        message = f"The adapter '{name}' has no setting '{unknown[0]}'.{suggest(unknown[0], fields)}"
        raise RequestError(message)
    missing = [label for label, field in fields.items() if field.default is dataclasses.MISSING and label not in given]
    if missing:
        message = f"The adapter '{name}' needs the setting '{missing[0]}', which was not given. Give it."
        raise RequestError(message)
    build: Any = known[name]
    return build(**{label: _value(value) for label, value in given.items()})


def described(adapter: Adapter) -> dict[str, Any]:
    """An adapter as plain JSON data, which `from_name` reads."""
    values = {field.name: getattr(adapter, field.name) for field in dataclasses.fields(adapter)}  # pyrefly: ignore
    return {"name": adapter.name, "settings": {label: _plain(value) for label, value in values.items()}}


def _plain(value: Any) -> Any:
    if isinstance(value, Adapter):
        return described(value)
    return list(value) if isinstance(value, tuple) else value


def _value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return from_name(value["name"], value["settings"])
    return tuple(value) if isinstance(value, list) else value
