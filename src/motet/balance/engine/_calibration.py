"""How much each chosen row counts: what is known of all rows where tasks meet comes out right."""

from collections.abc import Sequence

import torch
from torch import Tensor

from motet.balance.engine._layers import wide
from motet.balance.engine._tops import Top

RIDGE = 0.01  # of a row's own likeness; from 0.001 to 0.1 directions hardly change


def calibrated(tops: Sequence[Top], index: Tensor) -> Tensor:
    """Weights (T, r) of the chosen rows, near B / r, for estimates Σ_b ω_kb g_kb of the tasks' gradients.

    With φ_kb = δ_kb ⊗ (1, z_b), the gradient that row b would give a linear layer on the features z, taken at a size of
    one on the average,

        ω_k = argmin ‖Σ_{b in S} ω_b φ_kb − Σ_b φ_kb‖² + λ mean_b ‖φ_kb‖² ‖ω − B / r‖²

    Rows whose residuals happen to lean to one side are brought back: what they share would else drown the gradients of
    a trained net, which nearly cancel over the batch. Where heads do not tell z, φ_kb = δ_kb.

    Args:
        tops: the gradients δ where tasks meet, all with B rows.
        index: (r,) the chosen rows.

    Cost: T · B · r numbers, and T systems of r equations.
    """
    likeness = torch.stack([_likeness(top, index) for top in tops]).sum(dim=0)  # (T, B, r)
    ratio = likeness.shape[1] / len(index)
    among, wanted = likeness[:, index], likeness.sum(dim=1)
    own = among.diagonal(dim1=1, dim2=2).mean(dim=1)
    own = torch.where(own > 0, own, torch.ones_like(own))
    ridge = RIDGE * own.reshape(-1, 1, 1) * torch.eye(len(index), dtype=among.dtype, device=among.device)
    missing = wanted - ratio * among.sum(dim=2)
    # The form that never raises: gradients that are not finite come out as they are.
    return ratio + torch.linalg.solve_ex(among + ridge, missing.unsqueeze(2))[0].squeeze(2)


def _likeness(top: Top, index: Tensor) -> Tensor:
    """⟨φ_kb, φ_kc⟩ of all rows b with the chosen rows c, (T, B, r), float64."""
    found = torch.stack([_of_task(top, task, index) for task in range(top.num_tasks)]).double()
    features = next((piece.inputs for piece in top.pieces if piece.inputs is not None and piece.rows is None), None)
    if features is None:
        return found
    rows = wide(features)
    size = rows.square().sum(dim=1).mean().clamp(min=torch.finfo(rows.dtype).tiny)
    return found * (1 + (rows @ rows[index].T / size).double())


def _of_task(top: Top, task: int, index: Tensor) -> Tensor:
    """⟨δ_b, δ_c⟩ of one task, (B, r)."""
    pieces = [piece for piece in top.pieces if piece.task == task]
    if len(pieces) == 1 and pieces[0].matrix is not None and pieces[0].rows is None:
        delta, matrix = wide(pieces[0].delta), wide(pieces[0].matrix)
        return (delta @ (matrix @ matrix.T)) @ delta[index].T
    rows = wide(top.dense[task].flatten(1))
    return rows @ rows[index].T
