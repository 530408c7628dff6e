"""Finished cells on disk: one JSON file each, written whole or not at all."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from motet._errors import RunError
from motet.bench._balancing import BALANCE
from motet.bench._cell import Budget
from motet.bench._comparison import Comparison
from motet.train import read_json, write_json

FORMAT = 1  # raise it when the way cells are trained or measured changes: older cells are then measured anew


def cell_key(
    fingerprint: str, method: str, seed: int, budget: Budget, threads: int, comparison: Comparison = BALANCE
) -> str:
    """A hash of what determines a cell's result, the files that define its method among it.

    The rest of the library is not in it: after a change of the engine, measure into another folder.

    Args:
        fingerprint: of the problem.
        method: the name, wrappers included.
        seed: of the training.
        budget: steps and seconds.
        threads: of torch, which change the order of sums.
        comparison: what the method is one of.
    """
    digest = hashlib.blake2b(digest_size=8)
    digest.update(repr((FORMAT, fingerprint, method, seed, budget, threads)).encode())
    digest.update(comparison.source(method))
    return digest.hexdigest()


class Store:
    """Cells of all problems in one folder, found again by their key.

    Args:
        folder: made where it does not exist.

    Raises:
        RunError: the folder cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            message = f"The folder '{folder}' for finished cells cannot be made ({error.strerror}). Pass --cache DIR."
            raise RunError(message) from error

    def find(self, problem: str, method: str, seed: int, key: str) -> dict[str, Any] | None:
        """A finished cell, or None where there is none, or where its file is damaged."""
        path = self._path(problem, method, seed, key)
        if not path.is_file():
            return None
        try:
            cell = read_json(path)
        except RunError:
            return None  # a damaged cell is measured anew
        return cell if cell.get("key") == key else None

    def keep(self, cell: Mapping[str, Any], key: str) -> dict[str, Any]:
        """Writes a finished cell and gives it back with its key."""
        document = {"key": key, **json.loads(json.dumps(cell))}
        write_json(self._path(cell["problem"], cell["method"], cell["seed"], key), document)
        return document

    def _path(self, problem: str, method: str, seed: int, key: str) -> Path:
        return self.folder / f"{problem}.{method}.{seed}.{key}.json"
