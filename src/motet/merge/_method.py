"""What every merging method is: a rule for one stretch of one tensor, made from all models."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, TypeAlias

from motet._errors import RequestError
from motet.merge._checkpoint import Source
from motet.merge._claims import Golden
from motet.merge._dtypes import Array
from motet.merge._models import Models, Piece

# Gives the merged numbers (n,) of a piece, in float32 or float64.
Rule: TypeAlias = Callable[[Piece], Array]


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """A way to make one model of several; a dataclass, whose fields are its parameters."""

    name: ClassVar[str]
    # A rule for whole tensors gets one piece a tensor, and one tensor at a time.
    whole: ClassVar[bool] = False
    # Whether an expert's number that is not finite makes the merged one so: then it is looked for there alone.
    shows_not_finite: ClassVar[bool] = False
    num_experts: ClassVar[tuple[int, int | None]] = (1, None)
    needs: ClassVar[str] = ""
    claims: ClassVar[frozenset[str]] = frozenset()
    golden: ClassVar[tuple[Golden, ...]] = ()

    @abstractmethod
    def rule(self, models: Models) -> Rule:
        """Reads what it must know of all tensors, and returns what merges one piece."""

    def check(self, num_experts: int) -> None:
        """Refuses a number of experts that the method is not made for.

        Raises:
            RequestError: too few or too many.
        """
        least, most = self.num_experts
        if num_experts < least or (most is not None and num_experts > most):
            wanted = (
                f"exactly {least}" if least == most else f"at least {least}" if most is None else f"{least} to {most}"
            )
            message = (
                f"{self.name} got {num_experts} experts; {wanted} were expected. `motet merge --plan` lists what fits."
            )
            raise RequestError(message)

    def measured(self) -> Sequence[Source]:
        """What it reads beside the models, and the record of a merge names with checksums."""
        return ()

    def parameters(self) -> dict[str, Any]:
        """The method's parameters as a JSON document holds them."""
        return {key: _plain(getattr(self, key)) for key in asdict(self)}


def _plain(value: Any) -> Any:
    if isinstance(value, Method):
        return {"name": value.name, **value.parameters()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return (
        value if isinstance(value, int | float | str | None) else str(value) if not isinstance(value, dict) else "dict"
    )


def check_range(method: str, name: str, value: float, low: float, high: float) -> None:
    """Refuses a parameter outside [low, high].

    Raises:
        RequestError: it is outside, or NaN.
    """
    if not low <= value <= high:
        message = f"{method} got {name}={value}; a number from {low:g} to {high:g} was expected. Change {name}."
        raise RequestError(message)
