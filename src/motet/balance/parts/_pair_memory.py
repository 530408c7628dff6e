"""What a method remembers of each pair of tasks, by the tasks' names."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class PairMemory(nn.Module):
    """One number for each ordered pair of tasks, that a `state_dict` carries into a fresh instance.

    A task is known from the first time that it is asked for. Saved is one tensor a task: its row, in the order of the
    tasks' sorted names. `PerTask` keeps what belongs to one task.

    Args:
        start: of a pair not seen before.
    """

    def __init__(self, start: float) -> None:
        super().__init__()
        self.start = start
        self.known: list[str] = []
        self.values: Tensor
        self.register_buffer("values", self._fresh(0), persistent=False)

    def _fresh(self, size: int) -> Tensor:
        return torch.full((size, size), self.start, dtype=torch.float64)

    def read(self, names: Sequence[str]) -> Tensor:
        """The numbers (T, T) of these tasks' pairs, float64 on the CPU."""
        self._add(names)
        index = self._places(names)
        return self.values.cpu()[index][:, index]

    def write(self, names: Sequence[str], values: Tensor) -> None:
        """Keeps the numbers (T, T) of these tasks' pairs."""
        self._add(names)
        index = self._places(names).to(self.values.device)
        self.values[index.unsqueeze(1), index.unsqueeze(0)] = values.detach().to(self.values)

    def reset(self) -> None:
        """Forgets every task."""
        self.known = []
        self.values = self._fresh(0).to(self.values.device)

    def _places(self, names: Sequence[str]) -> Tensor:
        places = {name: place for place, name in enumerate(self.known)}
        return torch.tensor([places[name] for name in names], dtype=torch.int64)

    def _add(self, names: Sequence[str]) -> None:
        new = set(names).difference(self.known)
        if not new:
            return
        old, before = self.known, self.values
        self.known = sorted({*old, *new})
        self.values = self._fresh(len(self.known)).to(before)
        if old:
            self.write(old, before)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:  # noqa: FBT001
        for name, row in zip(self.known, self.values, strict=True):
            destination[f"{prefix}task:{name}"] = row if keep_vars else row.detach().clone()

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *_: Any) -> None:  # pyrefly: ignore[bad-override]
        start = f"{prefix}task:"
        rows = {key.removeprefix(start): value for key, value in state_dict.items() if key.startswith(start)}
        self.known = sorted(rows)
        fresh = self._fresh(0).to(self.values.device)
        self.values = torch.stack([rows[name].to(fresh) for name in self.known]) if rows else fresh
