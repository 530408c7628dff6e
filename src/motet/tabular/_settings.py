"""How a fit is to be made, as far as few people say it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from motet._errors import RequestError, suggest
from motet.balance import from_name
from motet.models.sharing import settings_of

LARGEST_SEED = 2**31 - 1  # LightGBM's seeds are 32-bit
DEPLOYS = ("small", "best")


@dataclass(frozen=True)
class FitSettings:
    """What few people set.

    Args:
        balance: balancing method of the shared network, as `motet methods` lists them; wrappers go before it, the
            outermost first: `f-mtl+cagrad`.
        margin: percent by which the shared model may at most be worse and still serve a target.
        level: share of rows that prediction intervals are to cover.
        max_epochs: of every network; None suits the table.
        resamples: bootstrap resamples of the guard.
        threads: processor threads; None takes those that torch takes.
        device: `cpu`, `cuda`, or None for the best there is.
        sharing: architecture of the shared network between encoder and heads, as `motet methods` lists them.
        sharing_settings: settings of that architecture by name, such as {"num_experts": 4}; None for its defaults.
        deploy: `small` serves each target by one model, and all of them by one small network that was taught by the
            others where the guard finds that not worse; `best` by a blend of its candidates where that is proven
            better, which keeps all of them in the artefact, and small tables by the mean over several cuts of their
            rows.
        catboost: whether `best` takes CatBoost as a candidate for each target of a small table, where it is installed.
            Without it the run can be exported, and loaded where CatBoost is missing.
    """

    balance: str = "uncertainty"
    margin: float = 0.5
    level: float = 0.9
    max_epochs: int | None = None
    resamples: int = 500
    threads: int | None = None
    device: str | None = None
    deploy: str = "small"
    sharing: str = "hard"
    sharing_settings: Mapping[str, Any] | None = None
    catboost: bool = True

    def __post_init__(self) -> None:
        from_name(self.balance)
        settings_of(self.sharing, self.sharing_settings)
        if self.deploy not in DEPLOYS:
            message = f"deploy is '{self.deploy}'.{suggest(self.deploy, DEPLOYS)} Choose small or best."
            raise RequestError(message)
        checked("margin", self.margin, low=0.0, high=100.0)
        checked("level", self.level, low=0.5, high=0.999)
        for name in ("max_epochs", "resamples", "threads"):
            value = getattr(self, name)
            if value is not None:
                checked(name, value, low=1, high=1e9)

    def torch_device(self) -> torch.device:
        """The device that was asked for, or the best there is."""
        return torch.device(self.device or ("cuda" if torch.cuda.is_available() else "cpu"))


def checked(name: str, value: float, *, low: float, high: float) -> float:
    """The value, if it is a number in this range.

    Raises:
        RequestError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        message = f"{name} is {value!r}; a number between {low:g} and {high:g} was expected. Change it."
        raise RequestError(message)
    return value
