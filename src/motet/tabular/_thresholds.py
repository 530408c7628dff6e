"""When to say yes, where the two ways of being wrong do not cost the same."""

from collections.abc import Mapping

import numpy as np

from motet._errors import RequestError, suggest
from motet.tasks import Task

Costs = Mapping[str, tuple[float, float]]


def thresholds(tasks: Mapping[str, Task], costs: Costs) -> dict[str, float]:
    """The probability above which yes is the cheaper answer: fp / (fp + fn), for calibrated probabilities.

    Saying yes costs (1 − p) fp on average, saying no p fn; what right answers cost or earn may be taken off these.

    Args:
        tasks: what is predicted, by name.
        costs: by target the cost of a false yes and of a false no, at least zero and not both zero.

    Raises:
        RequestError: a target that is not predicted or not binary, or costs that are none.
    """
    found = {}
    for name, pair in costs.items():
        if name not in tasks:
            message = f"Costs were given for '{name}', which is not among the predicted targets.{suggest(name, tasks)}"
            raise RequestError(message)
        if tasks[name].kind != "binary":
            message = (
                f"Costs were given for '{name}', a {tasks[name].kind} target; only binary targets have a threshold. "
                "Leave it out, and decide by predict_proba or estimate."
            )
            raise RequestError(message)
        values = np.asarray(pair, dtype=np.float64) if _are_numbers(pair) else np.zeros(0)
        if values.shape != (2,) or not np.isfinite(values).all() or values.min() < 0 or values.max() <= 0:
            message = (
                f"The costs of '{name}' are {pair!r}; two numbers of at least zero, not both zero, were expected. "
                "Give the cost of a false yes and that of a false no."
            )
            raise RequestError(message)
        # Divided by the larger one first: the sum of two huge costs is infinite.
        false_yes, false_no = values / values.max()
        found[name] = float(false_yes / (false_yes + false_no))
    return found


def read_above(task: Task, estimates: np.ndarray, threshold: float) -> np.ndarray:
    """Labels of a binary task (N,): yes where the probability lies above the threshold."""
    return task.read((np.asarray(estimates) > threshold).astype(np.float64))


def _are_numbers(pair: object) -> bool:
    return isinstance(pair, (tuple, list)) and all(
        isinstance(value, (int, float)) and not isinstance(value, bool) for value in pair
    )
