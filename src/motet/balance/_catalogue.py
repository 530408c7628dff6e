"""Every method in this room, found by walking it."""

from collections.abc import Mapping
from typing import TypeVar

from motet._discovery import named_classes
from motet._errors import RequestError, suggest
from motet.balance._balancer import Balancer
from motet.balance.around._wrapper import Wrapper

Kind = TypeVar("Kind")


def methods() -> dict[str, type[Balancer]]:
    """Each published method by the name that selects it in files and on the command line."""
    return {name: kind for name, kind in _walk().items() if not issubclass(kind, Wrapper)}


def wrappers() -> dict[str, type[Wrapper]]:
    """Each wrapper around a method, by the name that goes before the method's: `f-mtl+cagrad`."""
    return {name: kind for name, kind in _walk().items() if issubclass(kind, Wrapper)}


def from_name(name: str) -> Balancer:
    """Builds the method called `name` with its defaults; `outer+inner` puts one around another.

    Raises:
        RequestError: there is no method of that name, or the parts do not go together.

    Example:
        >>> from_name("gradient-noise+cagrad")
        GradientNoise(CAGrad())
    """
    *outer, innermost = name.split("+")
    found = _kind(innermost, _walk())()
    for part in reversed(outer):
        if part in methods():
            message = (
                f"'{name}' puts the method '{part}' around another; only wrappers go around. Put it last, as in "
                f"'f-mtl+{part}'."
            )
            raise RequestError(message)
        found = _kind(part, wrappers())(found)
    return found


def _kind(name: str, known: Mapping[str, Kind]) -> Kind:
    if name not in known:
        message = f"There is no balancing method '{name}'.{suggest(name, known)} `motet methods` lists them."
        raise RequestError(message)
    return known[name]


def _walk() -> dict[str, type[Balancer]]:
    return named_classes("motet.balance", Balancer) | named_classes("motet.balance.around", Balancer)
