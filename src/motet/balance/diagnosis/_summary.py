"""What many records of a diagnosis say together."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Record = Mapping[str, Any]
Points = dict[tuple[str, str], list[float]]  # cosines of each pair of tasks, in the order of the records


def summarise(records: Sequence[Record]) -> dict[str, Any]:
    """Layers by their share of the conflict and pairs by their mean cosine, each with its trend; see `Diagnosis`."""
    whole: Points = {}
    by_layer: dict[str, Points] = {}
    entries: dict[str, list[Record]] = {}
    for record in records:
        _collect(whole, record["tasks"], record["cosines"])
        for entry in record["layers"]:
            entries.setdefault(entry["layer"], []).append(entry)
            _collect(by_layer.setdefault(entry["layer"], {}), record["tasks"], entry["cosines"])
    conflict = {name: _mean(entry["conflict"] for entry in found) or 0.0 for name, found in entries.items()}
    total = sum(conflict.values())
    layers: list[dict[str, Any]] = [
        {"layer": name, "share": round(conflict[name] / total, 4) if total else 0.0, **_layer(found, by_layer[name])}
        for name, found in entries.items()
    ]
    pairs = [_pair(pair, points, by_layer) for pair, points in whole.items()]
    return {
        "observations": len(records),
        "layers": sorted(layers, key=lambda layer: -layer["share"]),
        "pairs": sorted(pairs, key=lambda pair: pair["cosine"]),
    }


def _collect(found: Points, tasks: Sequence[str], rows: Sequence[Sequence[float | None]]) -> None:
    for i, row in enumerate(rows):
        for j, cosine in enumerate(row[:i]):
            if cosine is not None:
                first, second = sorted((tasks[i], tasks[j]))
                found.setdefault((first, second), []).append(cosine)


def _layer(entries: Sequence[Record], points: Points) -> dict[str, Any]:
    least = [entry["least"] for entry in entries if entry["least"] is not None]
    lowest = min(points, key=lambda pair: sum(points[pair]) / len(points[pair]), default=None)
    return {"least": _mean(least), "pair": None if lowest is None else list(lowest), "trend": _trend(least)}


def _pair(pair: tuple[str, str], points: Sequence[float], by_layer: Mapping[str, Points]) -> dict[str, Any]:
    means = {name: sum(found[pair]) / len(found[pair]) for name, found in by_layer.items() if pair in found}
    lowest = min(means, key=means.__getitem__, default=None)
    return {"pair": list(pair), "cosine": _mean(points), "layer": lowest, "trend": _trend(points)}


def _trend(points: Sequence[float]) -> float | None:
    """The mean of the later half less that of the earlier, None with fewer than two."""
    half = len(points) // 2
    early, late = _mean(points[:half]), _mean(points[len(points) - half :])
    return None if early is None or late is None else round(late - early, 4)


def _mean(values: Iterable[float | None]) -> float | None:
    listed = [value for value in values if value is not None]
    return round(sum(listed) / len(listed), 6) if listed else None
