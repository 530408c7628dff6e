"""Every method in this room, found by walking it."""

from motet._discovery import named_classes
from motet._errors import RequestError, suggest
from motet.merge._method import Method


def methods() -> dict[str, type[Method]]:
    """Each published method by the name that selects it in files and on the command line."""
    # The learned methods need torch, data and a model; they are a package of their own, and not chosen by name.
    return named_classes("motet.merge", Method)


def from_name(name: str) -> Method:
    """Builds the method called `name` with its defaults.

    Raises:
        RequestError: there is no method of that name.
    """
    known = methods()
    if name not in known:
        message = f"There is no merging method '{name}'.{suggest(name, known)} `motet methods --room merge` lists them."
        raise RequestError(message)
    return known[name]()
