"""motet: one model for several things to predict, and proof that none got worse."""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from motet import balance, merge
    from motet._errors import MotetError, RequestError, RunError
    from motet.models import HardSharing, MultiTaskModel, TabularEncoder
    from motet.report import write_report
    from motet.tabular import FitSettings, TabularModel, load
    from motet.tasks import Binary, Count, Multiclass, Multilabel, Ordinal, Quantile, Regression

_ROOMS = {
    "motet._errors": ["MotetError", "RequestError", "RunError"],
    "motet.models": ["HardSharing", "MultiTaskModel", "TabularEncoder"],
    "motet.report": ["write_report"],
    "motet.tabular": ["FitSettings", "TabularModel", "load"],
    "motet.tasks": ["Binary", "Count", "Multiclass", "Multilabel", "Ordinal", "Quantile", "Regression"],
}
_HOME = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [
    "Binary",
    "Count",
    "FitSettings",
    "HardSharing",
    "MotetError",
    "MultiTaskModel",
    "Multiclass",
    "Multilabel",
    "Ordinal",
    "Quantile",
    "Regression",
    "RequestError",
    "RunError",
    "TabularEncoder",
    "TabularModel",
    "__version__",
    "balance",
    "load",
    "merge",
    "write_report",
]


def __getattr__(name: str) -> Any:
    """Loads a public name's room when it is first asked for: `import motet` alone loads nothing heavy."""
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    if name in {"balance", "merge", "tasks", "models", "data", "train", "tabular", "report", "serve"}:
        return importlib.import_module(f"motet.{name}")
    message = f"module 'motet' has no attribute '{name}'"
    raise AttributeError(message)


def __dir__() -> list[str]:
    return sorted(__all__)
