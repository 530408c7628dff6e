"""What was measured of each expert on its own data, from files or dicts."""

from collections.abc import Sequence
from typing import NoReturn

import numpy as np

from motet._errors import RequestError
from motet.merge._checkpoint import Source
from motet.merge._dtypes import Array
from motet.merge._models import Models, open_checkpoint


class Statistics:
    """One set of named arrays for each expert.

    Args:
        method: who asks, for messages.
        sources: one for each expert.
        models: the merge.

    Raises:
        RequestError: their number is not that of the experts.
    """

    def __init__(self, method: str, sources: Sequence[Source], models: Models) -> None:
        if len(sources) != len(models.experts):
            message = (
                f"{method} got {len(sources)} statistics for {len(models.experts)} experts; one for each, in the same "
                f"order, was "
                "expected. Pass statistics=(…), or --statistics FILE once for each expert."
            )
            raise RequestError(message)
        self._method = method
        self._found = [open_checkpoint(source, f"statistics {number}") for number, source in enumerate(sources, 1)]

    def has(self, name: str) -> bool:
        """Whether there are statistics of a tensor; of all experts or of none.

        Raises:
            RequestError: some have it.
        """
        holders = [found for found in self._found if name in found.entries]
        if holders and len(holders) < len(self._found):
            lacking = next(found for found in self._found if found not in holders)
            message = f"'{lacking.title}' lacks '{name}', which '{holders[0].title}' has. Measure all experts alike."
            raise RequestError(message)
        return bool(holders)

    def check_shape(self, name: str, shape: tuple[int, ...]) -> None:
        """Refuses statistics of another shape.

        Raises:
            RequestError: a shape does not fit.
        """
        for found in self._found:
            if found.entries[name].shape != shape:
                message = (
                    f"'{name}' of '{found.title}' has shape {found.entries[name].shape}; {self._method} expected "
                    f"{shape}. "
                    "Were the statistics measured on another model?"
                )
                raise RequestError(message)

    def read(self, number: int, name: str, start: int, length: int) -> Array:
        """The numbers from `start` of the flattened statistics of one expert.

        Raises:
            RequestError: a number is not finite.
        """
        numbers = self._found[number].read(name, start, start + length)
        if not np.isfinite(numbers).all():
            self.refuse(number, name, "NaN or infinity")
        return numbers

    def refuse(self, number: int, name: str, what: str) -> NoReturn:
        """Says that one expert's statistics of a tensor hold what they cannot.

        Raises:
            RequestError: always.
        """
        message = f"'{name}' of '{self._found[number].title}' holds {what}. Measure that expert again."
        raise RequestError(message)
