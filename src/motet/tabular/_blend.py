"""A blend of one target's candidates: how much of each estimate makes the best one."""

import itertools
from collections.abc import Mapping

import numpy as np

from motet.tasks import Task

STEPS, FEW_STEPS = 10, 5  # shares are tenths; fifths of more than three candidates, or there are hundreds of mixtures
LEAST_ROWS = 200  # labelled choose rows below which two shares cannot be told from luck
MOST = 400_000  # rows times columns that each mixture is scored on


def fit_blend(task: Task, estimates: Mapping[str, np.ndarray], targets: np.ndarray) -> dict[str, float]:
    """The shares of the candidates, tenths or fifths that add up to one, under which the mixture's main metric is best.

    Args:
        task: whose main metric counts.
        estimates: (N,) or (N, K) by candidate.
        targets: (N,) or (N, L), all present.
    """
    names = list(estimates)
    first = estimates[names[0]]
    width = first.shape[1] if first.ndim > 1 else 1
    rows = np.linspace(0, len(targets) - 1, min(len(targets), max(1, MOST // width))).astype(np.int64)
    parts = {name: np.asarray(estimates[name][rows], dtype=np.float64) for name in names}
    sign = 1.0 if task.higher_is_better else -1.0
    best, found = -np.inf, dict.fromkeys(names, 1.0 / len(names))
    steps = STEPS if len(names) <= 3 else FEW_STEPS
    for counts in itertools.product(range(steps + 1), repeat=len(names) - 1):
        if sum(counts) > steps:
            continue
        shares = dict(zip(names, (*counts, steps - sum(counts)), strict=True))
        shares = {name: count / steps for name, count in shares.items() if count}
        score = sign * float(task.score(mixed(parts, shares), targets[rows])[0])
        if score > best:
            best, found = score, shares
    return found


def cross_fitted(
    task: Task, estimates: Mapping[str, np.ndarray], targets: np.ndarray, halves: np.ndarray
) -> np.ndarray:
    """The blend of each row, under shares that were fitted on the other half of the rows.

    Args:
        task: whose main metric counts.
        estimates: (N,) or (N, K) by candidate.
        targets: (N,) or (N, L), all present.
        halves: (N,) bool, which half a row is in; rows that are alike belong in one.
    """
    found = np.array(next(iter(estimates.values())), dtype=np.float64)
    for half in (halves, ~halves):
        shares = fit_blend(task, {name: part[~half] for name, part in estimates.items()}, targets[~half])
        found[half] = mixed({name: part[half] for name, part in estimates.items()}, shares)
    return found


def mixed(estimates: Mapping[str, np.ndarray], shares: Mapping[str, float]) -> np.ndarray:
    """The mixture under these shares; one candidate alone comes back as it is."""
    if len(shares) == 1:
        return estimates[next(iter(shares))]
    parts = (share * np.asarray(estimates[name], dtype=np.float64) for name, share in shares.items())
    return np.sum(list(parts), axis=0)
