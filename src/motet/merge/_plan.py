"""What to know before a merge: sizes, how far experts have moved, where they disagree, and which methods fit."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from motet.merge._catalogue import methods
from motet.merge._checkpoint import Source
from motet.merge._dtypes import Array
from motet.merge._models import Models, open_models


@dataclass
class _Tensor:
    """Sums over the entries of one tensor."""

    gram: Array  # (1 + E, 1 + E) inner products of base and changes
    unchanged: Array  # (E,)
    contested: int  # entries that two experts or more have changed
    conflicting: int  # of these, with both signs


def plan(base: Source, experts: Sequence[Source], *, keep: Sequence[str] = ()) -> dict[str, Any]:
    """Reads the checkpoints once and says what a merge would meet.

    Args:
        base: as `merge` takes it.
        experts: the same.
        keep: patterns of tensors to take from the base.

    Returns:
        A JSON document: `numbers` merged and kept, the memory that a merge needs, for each expert how far it has moved
        from the base and how many entries it left alone, the cosines between the experts' changes, `sign_conflicts`
        (the share of the entries changed by several experts at which they pull both ways), the same by tensor, and for
        each method whether it fits and what it needs.

    Raises:
        RequestError: the checkpoints do not fit each other.

    Cost: one pass.
    """
    models = open_models(base, experts, keep=keep)
    found = models.each(lambda name: _read(models, name))
    whole = _Tensor(
        np.sum([tensor.gram for tensor in found.values()], axis=0),
        np.sum([tensor.unchanged for tensor in found.values()], axis=0),
        sum(tensor.contested for tensor in found.values()),
        sum(tensor.conflicting for tensor in found.values()),
    )
    merged = sum(models.size(name) for name in models.merged)
    return {
        "base": models.base.title,
        "tensors": {"merged": len(models.merged), "kept_from_base": list(models.kept), "tied": dict(models.tied)},
        "numbers": merged,
        "output_bytes": sum(models.base.entries[name].num_bytes for name in (*models.merged, *models.kept)),
        "largest_tensor": max(models.merged, key=models.size),
        "experts": [
            {
                "source": expert.title,
                "relative_change": _relative(whole.gram, number),
                "unchanged": float(whole.unchanged[number] / max(merged, 1)),
            }
            for number, expert in enumerate(models.experts)
        ],
        "cosines": _cosines(whole.gram).tolist(),
        "sign_conflicts": _share(whole),
        "layers": [
            {
                "name": name,
                "shape": list(models.base.entries[name].shape),
                "relative_changes": [_relative(found[name].gram, number) for number in range(len(models.experts))],
                "mean_cosine": _mean_cosine(found[name].gram),
                "sign_conflicts": _share(found[name]),
            }
            for name in models.merged
        ],
        "methods": [_fit(kind, models) for kind in methods().values()],
    }


def _read(models: Models, name: str) -> _Tensor:
    count = len(models.experts)
    found = _Tensor(np.zeros((count + 1, count + 1)), np.zeros(count, np.int64), 0, 0)
    for piece in models.pieces(name):
        deltas_EN = piece.deltas()
        rows = np.concatenate([piece.base[None].astype(np.float64), deltas_EN])
        found.gram += rows @ rows.T
        ups, downs = np.count_nonzero(deltas_EN > 0, axis=0), np.count_nonzero(deltas_EN < 0, axis=0)
        found.unchanged += np.count_nonzero(deltas_EN == 0, axis=1)
        found.contested += int(np.count_nonzero(ups + downs > 1))
        found.conflicting += int(np.count_nonzero((ups > 0) & (downs > 0)))
    return found


def _fit(kind: Any, models: Models) -> dict[str, Any]:
    least, most = kind.num_experts
    count = len(models.experts)
    fits = count >= least and (most is None or count <= most)
    largest = max((models.size(name) for name in models.merged), default=0)
    # Whole matrices are decomposed in float64, with about three copies of each expert's.
    memory = largest * 8 * (3 * count + 4) if kind.whole else 200 << 20
    needs = [f"{least if least == most else f'at least {least}'} experts"] if not fits else []
    return {
        "name": kind.name,
        "applies": fits,
        "needs": "; ".join([*needs, *([kind.needs] if kind.needs else [])]),
        "memory_bytes": memory,
    }


def _share(tensor: _Tensor) -> float:
    return tensor.conflicting / tensor.contested if tensor.contested else 0.0


def _relative(gram: Array, expert: int) -> float | None:
    return float(np.sqrt(gram[expert + 1, expert + 1] / gram[0, 0])) if gram[0, 0] > 0 else None


def _cosines(gram: Array) -> Array:
    lengths = np.sqrt(np.diag(gram)[1:])
    products = np.outer(lengths, lengths)
    return np.divide(gram[1:, 1:], products, out=np.zeros_like(products), where=products > 0)


def _mean_cosine(gram: Array) -> float | None:
    cosines = _cosines(gram)
    count = len(cosines)
    return float((cosines.sum() - np.trace(cosines)) / (count * (count - 1))) if count > 1 else None
