"""Each row's answer by the head of its own task, without a loop over tasks."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from motet.data import Features, TableRows
from motet.models import MultiTaskModel

ROWS = 512  # at once: each row takes a copy of its head's weights along
ANSWERS = 65_536  # rows times heads at once


@torch.inference_mode()
def own_heads(model: MultiTaskModel, features: Features, codes: np.ndarray) -> np.ndarray:
    """Estimates (N,) or (N, K): each row's by the head at its code (N,); the mean over all heads for a code of −1.

    Args:
        model: with hard sharing, and tasks that differ in nothing but their name.
        features: N rows.
        codes: places among the model's tasks.

    Cost: one head a row, and T heads for a row of an unknown task.
    """
    model.eval()
    num_heads = len(model.heads.weight_in)
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    for is_known, at_once in ((True, ROWS), (False, max(1, ANSWERS // num_heads))):
        places = np.flatnonzero((codes >= 0) == is_known)
        for start in range(0, len(places), at_once):
            chosen = places[start : start + at_once]
            parts.append((chosen, _estimates(model, features, chosen, codes[chosen] if is_known else None)))
    found = np.zeros((len(codes), *parts[0][1].shape[1:])) if parts else np.zeros(0)
    for chosen, estimates in parts:
        found[chosen] = estimates
    return found


def _estimates(model: MultiTaskModel, features: Features, rows: np.ndarray, codes: np.ndarray | None) -> np.ndarray:
    batch = TableRows(features, {}, {}).take(rows)
    shared_BF = model.sharing(model.features(batch.inputs), [0])[0]
    task = next(iter(model.tasks.values()))
    if codes is not None:
        return task.estimate(_outputs(model, shared_BF[:, None], torch.from_numpy(codes))[:, 0].float()).numpy()
    raw_TBK = _outputs(model, shared_BF.expand(len(model.heads.weight_in), *shared_BF.shape), None)
    estimates = task.estimate(raw_TBK.flatten(0, 1).float())
    return estimates.unflatten(0, raw_TBK.shape[:2]).mean(dim=0).numpy()


def _outputs(model: MultiTaskModel, features_NBF: Tensor, codes_N: Tensor | None) -> Tensor:
    """What `Heads` computes, for N heads that may repeat."""
    heads = model.heads
    parts = [heads.weight_in, heads.bias_in, heads.weight_out, heads.bias_out]
    weight_in, bias_in, weight_out, bias_out = parts if codes_N is None else [part[codes_N] for part in parts]
    hidden = functional.relu(torch.baddbmm(bias_in, features_NBF, weight_in))
    return torch.baddbmm(bias_out, hidden, weight_out)
