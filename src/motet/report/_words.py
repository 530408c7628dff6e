"""The report's wording: numbers as a person reads them, and plain names for models, metrics and verdicts."""

import math
from collections.abc import Sequence

from motet.report._results import Interval, Result, number

MODELS = {
    "shared": "shared model",
    "own_network": "own network",
    "own_lightgbm": "own LightGBM",
    "own_catboost": "own CatBoost",
    "own_linear": "own linear model",
    "blend": "blend of the candidates",
    "distilled": "small distilled network",
    "mean": "mean of the shared and the own model",
    "by task": "what is served, task by task",
    "common": "what the tasks have in common",
    "pooled": "LightGBM on all rows",
    "robust": "robust boosting over tasks",
    "embedding": "network with the task as a category",
    "heads": "network with a head for each task",
}

METRICS = {
    "accuracy": "share of rows with the right answer",
    "average_precision": "mean precision over all thresholds; 1 is perfect, the share of positives is chance",
    "brier": "mean squared distance of the probability from what happened; lower is better",
    "coverage": "share of rows whose value lies between the lowest and the highest predicted quantile",
    "crossing_rate": "share of rows where a higher quantile came out below a lower one; lower is better",
    "log_loss": "how surprised the probabilities are by what happened; lower is better",
    "macro_f1": "balance of precision and recall, averaged over classes",
    "macro_roc_auc": "ROC AUC of each class or label against the rest, averaged; 1 is perfect, 0.5 is chance",
    "mae": "mean absolute error, in the target's unit; lower is better",
    "micro_f1": "balance of precision and recall over all labels together",
    "pinball": "error of the predicted quantiles, in the target's unit; lower is better",
    "poisson_deviance": "distance of counts from what was expected, under a Poisson model; lower is better",
    "r2": "share of the variance that is explained; 1 is perfect, 0 is the mean",
    "rank_mae": "by how many grades the answer is off, on average; lower is better",
    "rmse": "root of the mean squared error, in the target's unit; lower is better",
    "roc_auc": "chance that a row with the outcome is ranked above one without it; 1 is perfect, 0.5 is chance",
    "rps": "ranked probability score: distance of the predicted grades from the true one; lower is better",
    "subset_accuracy": "share of rows where every label is right",
    "weighted_kappa": "agreement beyond chance in which distant mistakes count more; 1 is perfect, 0 is chance",
}

_IN_UNIT = {"rmse", "mae", "pinball"}
_NUMERIC = {"regression", "count", "quantile"}


def model_name(name: str) -> str:
    """The candidate's name in plain words."""
    return MODELS.get(name, name.replace("_", " ") or "not known")


def pipeline_tag(kind: str) -> str:
    """The Hugging Face task for a kind of task."""
    return "tabular-regression" if kind in _NUMERIC else "tabular-classification"


def decimals(values: Sequence[float | None]) -> int:
    """Decimals that show four digits of the largest value, so that one row's scores line up."""
    largest = max((abs(value) for value in values if value is not None), default=0.0)
    if largest == 0.0:
        return 3
    return min(max(3 - math.floor(math.log10(largest)), 0), 8)


def decimal(value: float | None, places: int) -> str:
    """`value` with `places` decimals and a true minus sign, or a dash where there is none."""
    if value is None:
        return "–"
    text = f"{value:,.{places}f}" if abs(value) < 1e12 else f"{value:.3g}"
    return minus("0" + text[2:] if text.startswith("-0") and not text.strip("-0.") else text)


def minus(text: str) -> str:
    """Writes hyphens as minus signs."""
    return text.replace("-", "−")


def score(value: float | None, result: Result) -> str:
    """A score of the task's main metric, with the digits that its row shares and its unit."""
    # The constant may be far off, and its digits would hide what separates the models.
    models = [value for value in (result.single, result.motet) if value is not None]
    places = decimals(models or [result.constant])
    unit = f" {result.unit}" if result.unit and result.metric in _IN_UNIT and value is not None else ""
    return decimal(value, places) + unit


def percent(value: float | None) -> str:
    """A signed percentage with two decimals below 10."""
    if value is None:
        return "–"
    places = 2 if abs(value) < 10 else 1 if abs(value) < 1000 else 0
    text = f"{value:+,.{places}f}"
    return minus(text if text.strip("+-0.,") else text[1:]) + " %"


def span(ends: Interval | None) -> str:
    """An interval of percentages: −0.90 to −0.50."""
    return f"{percent(ends[0])[:-2]} to {percent(ends[1])[:-2]}" if ends else ""


def gain(value: float | None, ends: Interval | None) -> str:
    """A gain in percent with its interval in brackets."""
    return percent(value) + (f" ({span(ends)})" if ends and value is not None else "")


def plain(value: float) -> str:
    """A number without needless digits: 0.5, 12, 0.002."""
    return minus(f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}")


def count(value: object) -> str:
    """A whole number with thousands separators, or a dash."""
    amount = number(value)
    return "–" if amount is None else f"{amount:,.0f}"


def duration(seconds: float | None) -> str:
    """Seconds as a person says them."""
    if seconds is None:
        return "–"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def listed(words: Sequence[str], most: int = 12) -> str:
    """`a`, `b` and `c`; past `most` words, how many more."""
    quoted = [f"`{word}`" for word in words[:most]]
    if len(words) > most:
        quoted.append(f"{len(words) - most} more")
    return " and ".join([", ".join(quoted[:-1]), quoted[-1]] if len(quoted) > 1 else quoted)


def plural(amount: int, noun: str) -> str:
    """1 target, 2 targets."""
    return f"{amount:,} {noun}" if amount == 1 else f"{amount:,} {noun}s"


def guard_words(result: Result) -> str:
    """The guard's verdict on the shared model, what followed from it, and whether the task can be predicted at all."""
    verdict = (result.guard.verdict if result.guard else "") or "not compared"
    if verdict in ("worse", "not proven") and result.served_by.startswith("own_"):
        verdict += ": own model kept"
    if result.guard and result.guard.tested == "together":
        verdict += f", by {result.guard.tasks} tasks together"
    return verdict + ("; not predictable" if result.predictable is False else "")
