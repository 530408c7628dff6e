"""One observation of a diagnosis: what every layer's gradients add up to, and how it is written down."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from motet.balance.diagnosis._nuclear import spectrum
from motet.balance.engine._conflict import cosines
from motet.balance.engine._layers import inner, wide


class LayerSums:
    """What the parameters of one layer add up to, over T tasks."""

    def __init__(self, num_tasks: int) -> None:
        self.num_tasks = num_tasks
        self.gram_TT = torch.zeros(num_tasks, num_tasks, dtype=torch.float64)
        self.nuclear: list[float] = []
        self.top: list[float] = []
        self.nuclear_sum = 0.0
        self.held = 1.0

    def add(self, rows: Tensor) -> None:
        """Takes in every task's gradient (T, ...) at one parameter."""
        rows = wide(rows.detach())
        self.gram_TT += inner(rows).cpu()
        if rows.ndim > 2:
            self._add_matrices(rows.flatten(2))

    def _add_matrices(self, matrices: Tensor) -> None:
        spectra = [spectrum(matrix) for matrix in matrices]
        before = self.nuclear or [0.0] * self.num_tasks
        self.nuclear = [old + new.nuclear for old, new in zip(before, spectra, strict=True)]
        tops = self.top or [0.0] * self.num_tasks
        self.top = [max(old, new.top) for old, new in zip(tops, spectra, strict=True)]
        whole = spectrum(matrices.sum(dim=0))
        self.nuclear_sum += whole.nuclear
        self.held = min(self.held, whole.held, *(one.held for one in spectra))


def diagnosis_record(step: int, tasks: list[str], layers: Mapping[str, LayerSums]) -> dict[str, Any]:
    """One observation, ready for JSON; its parts are listed at `Diagnosis`."""
    whole_TT = torch.stack([sums.gram_TT for sums in layers.values()]).sum(dim=0)
    entries = [_layer_record(name, tasks, sums, whole_TT) for name, sums in layers.items()]
    return {
        "step": step,
        "tasks": tasks,
        "norms": _rounded(_norms(whole_TT)),
        "cosines": [_rounded(row, 4) for row in cosines(whole_TT).tolist()],
        "layers": entries,
        "differences": _differences([entry for entry in entries if entry["nuclear"] is not None]),
    }


def _layer_record(name: str, tasks: list[str], sums: LayerSums, whole_TT: Tensor) -> dict[str, Any]:
    matrix = cosines(sums.gram_TT)
    pairs = [(float(matrix[i, j]), [tasks[j], tasks[i]]) for i in range(len(tasks)) for j in range(i)]
    least, pair = min(pairs, key=lambda found: found[0], default=(None, None))
    norms = whole_TT.diagonal().clamp(min=0).sqrt()
    scale_TT = norms.unsqueeze(0) * norms.unsqueeze(1)
    parts_TT = torch.where(scale_TT > 0, sums.gram_TT / scale_TT, 0.0).tril(-1)
    shares = [top / total if total else 0.0 for top, total in zip(sums.top, sums.nuclear, strict=True)]
    return {
        "layer": name,
        "norms": _rounded(_norms(sums.gram_TT)),
        "cosines": [_rounded(row[:i], 4) for i, row in enumerate(matrix.tolist())],
        "least": None if least is None else _rounded([least], 4)[0],
        "pair": pair,
        "conflict": _rounded([-float(parts_TT.clamp(max=0).sum()) / max(1, len(pairs))])[0],
        "nuclear": _rounded(sums.nuclear) or None,
        "nuclear_sum": _rounded([sums.nuclear_sum])[0] if sums.nuclear else None,
        "top_share": _rounded(shares, 4) or None,
        "held": _rounded([sums.held], 4)[0] if sums.nuclear else None,
    }


def _differences(entries: Sequence[Mapping[str, Any]]) -> dict[str, list[float | None]] | None:
    """By task, how far apart neighbouring layers are on average; None with fewer than two."""
    if len(entries) < 2:
        return None
    return {key: _rounded(_mean_steps([entry[key] for entry in entries])) for key in ("norms", "nuclear", "top_share")}


def _mean_steps(curves: Sequence[Sequence[float | None]]) -> list[float]:
    values_LT = torch.tensor([[float("nan") if one is None else one for one in row] for row in curves]).double()
    return values_LT.diff(dim=0).abs().mean(dim=0).tolist()


def _norms(gram_TT: Tensor) -> list[float]:
    return gram_TT.diagonal().clamp(min=0).sqrt().tolist()


def _rounded(values: Iterable[float], digits: int = 6) -> list[float | None]:
    """Significant digits that a log is worth; JSON has no NaN and no infinity."""
    return [float(f"{value:.{digits}g}") if abs(value) < float("inf") else None for value in values]
