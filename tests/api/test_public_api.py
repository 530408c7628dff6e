"""Every public name and signature, as it was agreed: growth is a decision.

After a change on purpose: `python tests/api/test_public_api.py > tests/api/public_api.txt`
"""

import importlib
import inspect
from pathlib import Path

ROOMS = (
    "motet",
    "motet.tasks",
    "motet.balance",
    "motet.models",
    "motet.models.blocks",
    "motet.models.sharing",
    "motet.models.adapters",
    "motet.data",
    "motet.train",
    "motet.tabular",
    "motet.merge",
    "motet.merge.learned",
    "motet.bench",
    "motet.report",
    "motet.serve",
)
SNAPSHOT = Path(__file__).with_name("public_api.txt")


def public_api() -> list[str]:
    """One line for each public name of each room, and for each public method of its classes."""
    lines = []
    for room in ROOMS:
        module = importlib.import_module(room)
        for name in sorted(module.__all__):
            thing = getattr(module, name)
            if inspect.isclass(thing):
                lines.append(f"{room}.{name}{_signature(thing)}")
                lines += [
                    f"{room}.{name}.{method}{_signature(function)}"
                    for method, function in sorted(vars(thing).items())
                    if not method.startswith("_") and callable(function)
                ]
            elif callable(thing):
                lines.append(f"{room}.{name}{_signature(thing)}")
            else:
                lines.append(f"{room}.{name}")
    return lines


def _signature(thing: object) -> str:
    try:
        found = inspect.signature(thing)  # pyrefly: ignore
    except (TypeError, ValueError):
        return "(...)"
    parameters = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in found.parameters.values()]
    return str(found.replace(parameters=parameters, return_annotation=inspect.Signature.empty))


def test_the_public_api_is_as_agreed() -> None:
    assert public_api() == SNAPSHOT.read_text(encoding="utf-8").splitlines()


if __name__ == "__main__":
    print("\n".join(public_api()))
