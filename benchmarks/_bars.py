"""How motet stands on each table beside the best single rival of each target."""

from collections.abc import Mapping

import numpy as np
from _cell import MOTETS
from _scores import MAIN, compare

REFERENCE = "lightgbm"
RELATIVE = {"regression": ("rmse", False)}  # where the main metric may be near zero, a ratio needs another one

Resampled = Mapping[tuple[str, str], Mapping[str, list[np.ndarray]]]


def bars(document: Mapping, resampled: Resampled) -> dict[str, dict]:
    """For each data set and each motet: targets held and won against the best rival, and the mean gain.

    The best rival of a target is the one with the best mean test score, which favours the rivals: they are picked by
    the rows that they are measured on. `held` means that the 95% interval of the difference reaches zero, `won` that it
    lies above. `delta_m_percent` is the mean over targets of the relative gain over LightGBM, by RMSE for numbers.
    """
    found: dict[str, dict] = {}
    for dataset, about in document["data_sets"].items():
        kinds = {target: one["kind"] for target, one in about["targets"].items()}
        scores = _means(document["cells"], dataset)
        for motet in MOTETS:
            rivals = [rival for rival in scores if rival not in MOTETS]
            if motet in scores and rivals:
                ours = {rival: resampled[dataset, rival] for rival in (motet, *rivals)}
                found.setdefault(dataset, {})[motet] = _bar(kinds, scores, ours, motet, rivals)
    return found


def _bar(kinds: dict[str, str], scores: dict, resampled: dict, motet: str, rivals: list[str]) -> dict:
    targets = {}
    for target, kind in kinds.items():
        metric, more = MAIN[kind]
        best = max(rivals, key=lambda rival: (1 if more else -1) * scores[rival][target][metric])
        low, high = compare(kind, resampled[motet][target], resampled[best][target])
        targets[target] = {"rival": best, "ci95": [low, high]}
    gains = [_gain(kinds[target], scores, motet, REFERENCE, target) for target in kinds if REFERENCE in rivals]
    return {
        "targets": targets,
        "held": sum(one["ci95"][1] >= 0 for one in targets.values()),
        "won": sum(one["ci95"][0] > 0 for one in targets.values()),
        "of": len(targets),
        "delta_m_percent": round(float(np.mean(gains)), 3) if gains else None,
        "delta_m_best_percent": round(
            float(np.mean([_gain(kinds[t], scores, motet, one["rival"], t) for t, one in targets.items()])), 3
        ),
    }


def _gain(kind: str, scores: dict, motet: str, rival: str, target: str) -> float:
    metric, more = RELATIVE.get(kind, MAIN[kind])
    ours, theirs = scores[motet][target][metric], scores[rival][target][metric]
    return 100.0 * (1 if more else -1) * (ours - theirs) / abs(theirs)


def _means(cells: list[Mapping], dataset: str) -> dict[str, dict[str, dict[str, float]]]:
    """Every metric's mean over seeds, by contender and target."""
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for cell in cells:
        if cell["dataset"] == dataset:
            for target, metrics in cell["scores"].items():
                for metric, value in metrics.items():
                    row = found.setdefault(cell["rival"], {}).setdefault(target, {})
                    row.setdefault(metric, []).append(value)
    return {
        rival: {target: {name: float(np.mean(values)) for name, values in row.items()} for target, row in rows.items()}
        for rival, rows in found.items()
    }
