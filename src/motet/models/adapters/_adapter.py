"""What an adapter is: settings that make something to add to each of some linear layers."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from motet.models.adapters._layer import AdapterLayer, Place


class Adapter(ABC):
    """A published way to adapt linear layers to several tasks, as frozen settings; `attach` puts it on a module.

    Attributes:
        name: what selects it in files and lists.
        needs_tasks: whether it is nothing without names of tasks.
    """

    name: ClassVar[str]
    needs_tasks: ClassVar[bool] = True

    @abstractmethod
    def layers(self, places: Sequence[Place]) -> list[AdapterLayer]:
        """What is added at each place, in that order."""
