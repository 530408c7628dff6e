"""Every method in this room, found by walking it."""

import importlib
import inspect
import pkgutil

from motet._errors import RequestError, suggest
from motet.balance._balancer import Balancer


def methods() -> dict[str, type[Balancer]]:
    """Each published method by the name that selects it in files and on the command line."""
    package = importlib.import_module("motet.balance")
    found: dict[str, type[Balancer]] = {}
    for module_info in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"motet.balance.{module_info.name}")
        for _, kind in inspect.getmembers(module, inspect.isclass):
            if issubclass(kind, Balancer) and not inspect.isabstract(kind) and kind.__module__ == module.__name__:
                found[kind.name] = kind
    return dict(sorted(found.items()))


def from_name(name: str) -> Balancer:
    """Builds the method called `name` with its defaults.

    Raises:
        RequestError: there is no method of that name.
    """
    known = methods()
    if name not in known:
        message = f"There is no balancing method '{name}'.{suggest(name, known)} `motet methods` lists them."
        raise RequestError(message)
    return known[name]()
