"""Scores of predictions by kind of target, with the resamples that intervals are made from."""

from collections.abc import Callable

import numpy as np

RESAMPLES = 500

# kind → the main metric and whether more is better
MAIN = {
    "regression": ("r2", True),
    "binary": ("roc_auc", True),
    "multiclass": ("roc_auc", True),
    "count": ("poisson_deviance", False),
}


def r2(truth: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> float:
    """1 − squared error over squared distance to the weighted mean."""
    spread = weights @ (truth - np.average(truth, weights=weights)) ** 2
    return float(1 - weights @ (truth - predicted) ** 2 / spread) if spread > 0 else float("nan")


def rmse(truth: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> float:
    """Root of the mean squared error, in the target's unit."""
    return float(np.sqrt(np.average((truth - predicted) ** 2, weights=weights)))


def poisson_deviance(truth: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> float:
    """The mean Poisson deviance; predictions are lifted to 1e-6, since a rate of zero has no likelihood."""
    rate = np.maximum(predicted, 1e-6)
    ratio = np.log(np.where(truth > 0, truth, 1) / rate)
    return float(np.average(2 * (truth * np.where(truth > 0, ratio, 0) - truth + rate), weights=weights))


class AreaUnderCurve:
    """The area under the ROC curve for many weightings of the same rows: the sort is done once."""

    def __init__(self, positive: np.ndarray, scores: np.ndarray) -> None:
        self.order = np.argsort(scores, kind="stable")
        ranked = scores[self.order]
        self.starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])  # where a run of equal scores begins
        self.positive = positive[self.order].astype(np.float64)

    def __call__(self, weights: np.ndarray) -> float:
        """The area; NaN where only one class has weight."""
        weights = weights[self.order]
        ups = np.add.reduceat(weights * self.positive, self.starts)
        downs = np.add.reduceat(weights * (1 - self.positive), self.starts)
        pairs = ups.sum() * downs.sum()
        below = np.cumsum(downs) - downs / 2  # a tie counts half
        return float(ups @ below / pairs) if pairs > 0 else float("nan")


def area(kind: str, truth: np.ndarray, predicted: np.ndarray) -> Callable[[np.ndarray], float]:
    """The area as a function of row weights: of one yes/no label, or the mean of every class against the rest."""
    if kind == "binary":
        return AreaUnderCurve(truth == 1, predicted)
    present = [c for c in range(predicted.shape[1]) if (truth == c).any()]
    areas = [AreaUnderCurve(truth == c, predicted[:, c]) for c in present]

    def mean(weights: np.ndarray) -> float:
        found = [value for value in (one(weights) for one in areas) if not np.isnan(value)]
        return float(np.mean(found)) if found else float("nan")

    return mean


def log_loss(kind: str, truth: np.ndarray, predicted: np.ndarray) -> float:
    """Mean negative log likelihood, with probabilities lifted to 1e-12."""
    chosen = np.where(truth == 1, predicted, 1 - predicted) if kind == "binary" else None
    if chosen is None:
        chosen = predicted[np.arange(len(truth)), truth.astype(int)]
    return float(-np.log(np.maximum(chosen, 1e-12)).mean())


def score(kind: str, truth: np.ndarray, predicted: np.ndarray) -> tuple[dict[str, float], np.ndarray]:
    """Scores predictions on the rows whose label is known.

    Args:
        kind: regression, binary, multiclass or count.
        truth: (N,) numbers, 0/1 or class indices; NaN where the label is missing.
        predicted: (N,) values or probabilities, or (N, C).

    Returns:
        every metric of the kind by name, and the main metric on each of 500 resamples of the rows. Resamples depend
        on the number of rows alone, so that two models' are paired.
    """
    known = ~np.isnan(truth)
    truth, predicted = truth[known], np.asarray(predicted, dtype=np.float64)[known]
    ones = np.ones(len(truth))
    if kind in ("binary", "multiclass"):
        main = area(kind, truth, predicted)
        metrics = {"roc_auc": main(ones), "log_loss": log_loss(kind, truth, predicted)}
    else:
        chosen = {"regression": (r2, rmse), "count": (poisson_deviance, r2)}[kind]
        metrics = {one.__name__: one(truth, predicted, ones) for one in chosen}

        def main(weights: np.ndarray) -> float:
            return chosen[0](truth, predicted, weights)

    random = np.random.default_rng(0)
    draws = (random.integers(0, len(truth), len(truth)) for _ in range(RESAMPLES))
    resampled = [main(np.bincount(draw, minlength=len(truth)).astype(np.float64)) for draw in draws]
    return metrics, np.array(resampled)


def compare(kind: str, ours: list[np.ndarray], theirs: list[np.ndarray]) -> tuple[float, float]:
    """The 95% interval of ours − theirs, turned so that more is better, over paired resamples; seeds are averaged."""
    difference = np.mean(ours, axis=0) - np.mean(theirs, axis=0)
    low, high = np.nanquantile(difference if MAIN[kind][1] else -difference, [0.025, 0.975])
    return float(low), float(high)
