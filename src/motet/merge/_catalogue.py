"""Every method in this room, found by walking it."""

import importlib
import inspect
import pkgutil

from motet._errors import RequestError, suggest
from motet.merge._method import Method


def methods() -> dict[str, type[Method]]:
    """Each published method by the name that selects it in files and on the command line."""
    package = importlib.import_module("motet.merge")
    found: dict[str, type[Method]] = {}
    for module_info in pkgutil.iter_modules(package.__path__):
        if module_info.ispkg:  # the learned methods need torch, data and a model: they are not chosen by name
            continue
        module = importlib.import_module(f"motet.merge.{module_info.name}")
        for _, kind in inspect.getmembers(module, inspect.isclass):
            if issubclass(kind, Method) and not inspect.isabstract(kind) and kind.__module__ == module.__name__:
                found[kind.name] = kind
    return dict(sorted(found.items()))


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
