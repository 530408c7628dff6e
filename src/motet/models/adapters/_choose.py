"""Which linear layers of a module are adapted."""

from collections.abc import Callable
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from motet._errors import RequestError, suggest

Layers = str | Callable[[str, nn.Linear], bool]


def chosen_layers(module: nn.Module, layers: Layers) -> dict[str, nn.Linear]:
    """The linear layers that a pattern or a function takes, by name.

    Args:
        module: any module.
        layers: patterns for whole names with `*`, `?` and `[…]`, separated by `|`; or a function of name and layer.

    Raises:
        RequestError: the module has no linear layer, none is taken, or one is that is never called.
    """
    linear = {name: part for name, part in module.named_modules() if isinstance(part, nn.Linear)}
    found = {name: part for name, part in linear.items() if _takes(layers, name, part)}
    if not linear:
        message = (
            f"{type(module).__name__} has no torch.nn.Linear layer; adapters go onto those. GPT-2's Conv1D, for one, "
            "is none: replace such layers by linear ones first."
        )
        raise RequestError(message)
    if not found:
        asked = f"'{layers}'" if isinstance(layers, str) else "the given function"
        endings = sorted({f"*{name.rpartition('.')[2]}" for name in linear})
        near = suggest(layers, endings) if isinstance(layers, str) else suggest("", endings)
        message = f"No linear layer of {type(module).__name__} matches {asked}.{near} Patterns match whole names."
        raise RequestError(message)
    for name, part in found.items():
        if isinstance(part, NonDynamicallyQuantizableLinear):
            message = (
                f"'{name}' belongs to a torch.nn.MultiheadAttention, which reads its weight without calling it, so "
                "that an adapter there would do nothing. Choose layers that leave it out."
            )
            raise RequestError(message)
    return found


def matches(name: str, patterns: str) -> bool:
    """Whether one of the patterns, separated by `|`, fits the whole name."""
    return any(fnmatchcase(name, pattern.strip()) for pattern in patterns.split("|"))


def _takes(layers: Layers, name: str, part: nn.Linear) -> bool:
    return matches(name, layers) if isinstance(layers, str) else bool(layers(name, part))
