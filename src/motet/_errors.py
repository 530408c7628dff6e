"""The errors that motet raises: what arrived, what was expected, what to do next."""

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType


class MotetError(Exception):
    """Base of every error that motet raises on purpose."""


class RequestError(MotetError, ValueError):
    """What was asked for cannot be done as asked: a wrong name, value, file or shape. Command-line exit code 2."""


class RequestTypeError(MotetError, TypeError):
    """An argument of a type that motet does not take. Command-line exit code 2."""


class RunError(MotetError, RuntimeError):
    """The request was right and the work failed: a full disk, an interrupted or damaged run. Exit code 1."""


class MissingExtraError(MotetError, ImportError):
    """An optional dependency is not installed; the message is the line that installs it. Exit code 1."""


def suggest(name: str, options: Iterable[str]) -> str:
    """Returns " Did you mean 'x'?" for the option nearest to `name`, or else a short list of the options."""
    options = [str(option) for option in options]
    near = difflib.get_close_matches(name, options, n=1, cutoff=0.6)
    if not near:
        folded = {option.casefold(): option for option in options}
        near = [folded[name.casefold()]] if name.casefold() in folded else []
    if near:
        return f" Did you mean '{near[0]}'?"
    shown = ", ".join(options[:12]) + (", ..." if len(options) > 12 else "")
    return f" There are: {shown}." if options else ""


def require(module: str, extra: str) -> ModuleType:
    """Imports `module`, or says which extra of motet brings it.

    Raises:
        MissingExtraError: the module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        message = f"This needs '{module}', which is not installed. Run: pip install 'motet[{extra}]'"
        raise MissingExtraError(message) from error
