"""What a room holds, found by walking it: a new file is known without being registered anywhere."""

import importlib
import inspect
import pkgutil
from typing import Any


def named_classes(package: str, base: type[Any]) -> dict[str, type[Any]]:
    """Every concrete class under `base` that a module of the package defines, by its `name`; sub-packages are left out.

    Cost: imports every module of the package once.
    """
    found: dict[str, type[Any]] = {}
    for info in pkgutil.iter_modules(importlib.import_module(package).__path__):
        if info.ispkg:
            continue
        module = importlib.import_module(f"{package}.{info.name}")
        for _, kind in inspect.getmembers(module, inspect.isclass):
            if issubclass(kind, base) and not inspect.isabstract(kind) and kind.__module__ == module.__name__:
                found[kind.name] = kind
    return dict(sorted(found.items()))
