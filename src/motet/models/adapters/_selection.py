"""Which task the next rows belong to."""

from collections.abc import Sequence

import torch
from torch import Tensor

from motet._errors import RequestError, suggest

Chosen = str | Sequence[str] | Tensor | None


class Selection:
    """The task of a pass, or of each of its rows; every adapted layer of a module reads the same one.

    Args:
        tasks: names, in the order of the adapters' stacks.

    Raises:
        RequestError: a name stands twice.
    """

    def __init__(self, tasks: Sequence[str]) -> None:
        self.tasks = tuple(tasks)
        twice = sorted({name for name in self.tasks if self.tasks.count(name) > 1})
        if twice:
            message = f"The task '{twice[0]}' was given twice; each needs a name of its own. Rename or drop one."
            raise RequestError(message)
        # A tensor (1,) even for one task: a traced graph would be made anew for each plain number.
        self.task: Tensor | None = None
        self.rows: Tensor | None = None

    def set(self, chosen: Chosen, device: torch.device) -> None:
        """Chooses a task by name, one a row by names or by numbers (B,), or none.

        Raises:
            RequestError: there is no task of that name or number.
        """
        if chosen is None:
            self.task = self.rows = None
        elif isinstance(chosen, Tensor):
            self.task, self.rows = None, self._checked(chosen).to(device)
        else:
            names = [chosen] if isinstance(chosen, str) else chosen
            numbers = torch.tensor([self.number(name) for name in names], dtype=torch.long, device=device)
            self.task, self.rows = (numbers, None) if isinstance(chosen, str) else (None, numbers)

    def number(self, name: str) -> int:
        """Where the task stands.

        Raises:
            RequestError: there is no such task.
        """
        if name not in self.tasks:
            message = f"There is no task '{name}' among the adapters.{suggest(name, self.tasks)} Choose one of them."
            raise RequestError(message)
        return self.tasks.index(name)

    def _checked(self, rows: Tensor) -> Tensor:
        if rows.ndim != 1 or rows.dtype.is_floating_point or rows.dtype == torch.bool:
            message = (
                f"Tasks of rows came as {rows.dtype} of shape {tuple(rows.shape)}; whole numbers of shape (B,) were "
                f"expected, from 0 to {len(self.tasks) - 1}. Give one number a row, or the name of one task."
            )
            raise RequestError(message)
        # Looking at the values would stop a GPU and break a traced graph; there, what is out of range fails later.
        looks = rows.device.type == "cpu" and not torch.compiler.is_compiling() and len(rows) > 0
        if looks and (int(rows.min()) < 0 or int(rows.max()) >= len(self.tasks)):
            message = (
                f"Tasks of rows go from {int(rows.min())} to {int(rows.max())}; there are {len(self.tasks)}, numbered "
                "from 0. Number them as the adapters' `tasks` list them."
            )
            raise RequestError(message)
        return rows.long()
