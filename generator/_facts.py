"""What the code says of each method: its docstring, its laws, and, by watching one step, what it looks at."""

import inspect
import sys
from dataclasses import dataclass, field
from typing import Literal

import torch

from generator._docstring import Docstring, read_docstring
from motet.balance import Balancer, EqualWeighting, Golden, View, methods, wrappers

Family = Literal["losses", "gramian", "coordinates", "features", "wrapper"]
FAMILIES: dict[Family, str] = {
    "losses": "From losses alone",
    "gramian": "From the Gramian of the tasks' gradients",
    "features": "From gradients at the shared features",
    "coordinates": "From gradients by coordinate, most with state of their size",
    "wrapper": "Around another method",
}


@dataclass(frozen=True)
class Facts:
    """One method.

    Args:
        name: what selects it in files and on the command line.
        kind: its class.
        family: what it looks at.
        docstring: of its class.
        title: the first line of its file.
        has_state: whether it keeps something from step to step.
        learns: whether it has parameters for the optimiser.
        is_random: whether it draws numbers.
    """

    name: str
    kind: type[Balancer]
    family: Family
    docstring: Docstring
    title: str
    has_state: bool
    learns: bool
    is_random: bool
    golden: tuple[Golden, ...] = field(default=())

    @property
    def file(self) -> str:
        """The method's file, from the root of the repository."""
        return f"src/{self.kind.__module__.replace('.', '/')}.py"

    @property
    def label(self) -> str:
        """The name of its class."""
        return self.kind.__name__

    @property
    def options(self) -> dict[str, inspect.Parameter]:
        """What its class takes."""
        return dict(inspect.signature(self.kind).parameters)


def all_facts() -> list[Facts]:
    """Every method and every wrapper, by name."""
    return [_facts(kind) for _, kind in sorted({**methods(), **wrappers()}.items())]


def _facts(kind: type[Balancer]) -> Facts:
    is_wrapper = kind in wrappers().values()
    method = kind(EqualWeighting()) if is_wrapper else kind()  # pyrefly: ignore
    family = "wrapper" if is_wrapper else _family(method)
    learns = _learns(method)
    parts = [part for part in method.modules() if not isinstance(part, Balancer)]
    title = (sys.modules[kind.__module__].__doc__ or "").splitlines()[0]
    has_state = learns or bool(parts) or bool(list(method.buffers()))
    options = inspect.signature(kind).parameters
    return Facts(
        kind.name, kind, family, read_docstring(kind), title, has_state, learns, "seed" in options, kind.golden
    )


def _learns(method: Balancer) -> bool:
    method.add_tasks(["a", "b"])
    return bool(list(method.parameters()))


def _family(method: Balancer) -> Family:
    """What the method reads of a view in one step."""
    shared = torch.zeros(12, requires_grad=True)
    z = (shared * 1.0).reshape(4, 3)
    rows = torch.arange(24.0).reshape(2, 4, 3).cos()
    losses = {name: (row * z).sum() + 1 for name, row in zip("ab", rows, strict=True)}
    features = [z] if method.needs_features else None
    view = View(losses, [shared], features, method=type(method).__name__)
    method.update(view)
    read = set(vars(view))
    if method.needs_features:
        return "features"
    if "jacobian" in read:
        return "coordinates"
    return "gramian" if "gramian" in read else "losses"
