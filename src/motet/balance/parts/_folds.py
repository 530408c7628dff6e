"""Independent estimates of the tasks' gradients from one batch: its rows dealt into parts."""

import torch
from torch import Tensor

from motet._errors import RequestError
from motet.balance.engine._view import View


def fold_rows(view: View, num_folds: int) -> list[Tensor] | None:
    """Each part's estimate (T, F) of the tasks' gradients at a shift of the features that all rows share.

    Row b belongs to part b mod `num_folds`. A part's sum over its rows is scaled up to the whole batch, so that with
    independent rows every part is an unbiased estimate of the same gradient and the parts are independent.

    Returns:
        One tensor a part, float64; None where the batch has fewer rows than parts.

    Raises:
        RequestError: the gradients are not at features.
    """
    if view.features is None:
        message = (
            f"{view.method} needs independent estimates of the gradients, which it makes from parts of the batch's "
            "rows, and was given no features. Pass features=z, the shared representation with a row for each of the "
            "batch."
        )
        raise RequestError(message)
    if any(part.ndim < 2 or part.shape[1] < num_folds for part in view.saliency):
        return None
    return [torch.cat([_fold(part, fold, num_folds) for part in view.saliency], dim=1) for fold in range(num_folds)]


def _fold(saliency: Tensor, fold: int, num_folds: int) -> Tensor:
    """The part's sum over rows, as large as the whole batch's is expected to be."""
    rows = saliency[:, fold::num_folds]
    return rows.double().sum(dim=1).flatten(1) * (saliency.shape[1] / rows.shape[1])
