"""What the exact solvers share: gradients as unit vectors and lengths, and non-negative quadratic programs.

Lengths of gradients may differ by twenty orders of magnitude. Every solver therefore works with cosines, and with the
length that each task adds to the direction in the place of its weight: so no result depends on the losses' units.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from motet.balance.engine._view import View

_PATIENCE = 5  # block exchanges in a row that may fail to help before variables are exchanged one at a time
_SLACK = 1e-12  # how far below zero a multiplier counts as zero, relative to the greatest number of the right-hand side
_MAX_CHANGES = 10  # of one variable, on average


@dataclass(frozen=True)
class Directions:
    """The tasks' gradients up to rotation, on the CPU in float64: solvers are too small for a GPU.

    Args:
        norms: (T,) lengths; one where the gradient is zero.
        cosines: (T, T), positive definite by a ridge on its diagonal; a row of the identity where the gradient is zero.
        ridge: what was added to the diagonal, about the rounding of the gradients.
        alive: (T,) whether the gradient is not zero.
    """

    norms: Tensor
    cosines: Tensor
    ridge: float
    alive: Tensor

    @property
    def is_still(self) -> bool:
        """Whether every gradient is zero."""
        return not bool(self.alive.any())

    def pseudo_solve(self, right: Tensor) -> Tensor:
        """C⁺ b without the ridge: eigenvalues within rounding of zero count as zero."""
        plain = self.cosines.clone()
        plain.diagonal()[self.alive] -= self.ridge
        values, vectors = torch.linalg.eigh(plain)
        inverse = torch.where(values > 10 * self.ridge * len(values), 1 / values, torch.zeros_like(values))
        return vectors @ (inverse * (vectors.T @ right))


def precision(view: View) -> float:
    """The size of rounding in the view's Gramian, relative to its diagonal."""
    loss = next(iter(view.by_name.values()))
    return 1e-12 if loss.dtype == torch.float64 else 1e-6


def directions(gramian: Tensor, rounding: float = 1e-12) -> Directions:
    """Splits a Gramian into lengths and cosines.

    Args:
        gramian: (T, T) inner products of the tasks' gradients.
        rounding: relative size of its errors.
    """
    gramian = gramian.detach().to("cpu", torch.float64)
    squares = gramian.diagonal()
    alive = squares > 0
    whole = bool(alive.all())
    norms = squares.sqrt() if whole else torch.where(alive, squares.clamp(min=0).sqrt(), torch.ones_like(squares))
    cosines = gramian / norms / norms.unsqueeze(1)
    cosines = (cosines + cosines.T).mul_(0.5).clamp_(-1, 1)
    if not whole:
        cosines[~alive], cosines[:, ~alive] = 0.0, 0.0
    ridge, alive_as_number = rounding, alive.double()
    while True:
        cosines.diagonal().copy_(1 + ridge * alive_as_number)
        if int(torch.linalg.cholesky_ex(cosines)[1]) == 0:
            return Directions(norms, cosines, ridge, alive)
        ridge *= 10


def nonnegative_qp(matrix: Tensor, linear: Tensor) -> Tensor:
    """The minimiser over y ≥ 0 of ½ yᵀQy − rᵀy, exact up to rounding, for many r at once.

    Block pivoting: all variables that break a sign are exchanged at once, and one at a time where that does not help.

    Args:
        matrix: (T, T) positive definite Q.
        linear: (N, T) right-hand sides r.

    Returns:
        (N, T).

    Cost: one Cholesky factor of (N, T, T) a pivot; seldom more than ten pivots.

    Source: Portugal, Júdice and Vicente, A Comparison of Block Pivoting and Interior-Point Algorithms for Linear Least
        Squares Problems with Nonnegative Variables, Mathematics of Computation 1994.
    """
    found = torch.zeros_like(linear)
    todo = torch.arange(len(linear))
    free = linear > 0
    best = torch.full((len(linear),), linear.shape[1] + 1)
    patience = torch.full_like(best, _PATIENCE)
    while len(todo):
        right = linear[todo]
        solution = _solve_free(matrix, right, free)
        found[todo] = solution
        slack = solution @ matrix - right
        broken = torch.where(free, solution < 0, slack < -_SLACK * right.amax(dim=1, keepdim=True).clamp(min=0))
        count = broken.sum(dim=1)
        patience = torch.where(count < best, _PATIENCE, patience - 1)
        best = torch.minimum(best, count)
        for row in todo[(count > 0) & (patience < 0)].tolist():
            found[row] = _one_at_a_time(matrix, linear[row])
        going = (count > 0) & (patience >= 0)
        todo, free, best, patience = todo[going], (free ^ broken)[going], best[going], patience[going]
    return found.clamp(min=0)


def _one_at_a_time(matrix: Tensor, linear: Tensor) -> Tensor:
    """The active-set method of Lawson and Hanson: never uphill, so it ends where block pivoting goes in circles."""
    found, free = torch.zeros_like(linear), torch.zeros_like(linear, dtype=torch.bool)
    for _ in range(_MAX_CHANGES * len(linear)):
        slack = (found @ matrix - linear).masked_fill(free, torch.inf)
        enters = int(slack.argmin())
        if float(slack[enters]) >= -_SLACK * max(float(linear.max()), 0.0):
            break
        free[enters] = True
        while True:
            goal = _solve_free(matrix, linear.unsqueeze(0), free.unsqueeze(0))[0]
            down = free & (goal <= 0)
            if not bool(down.any()):
                break
            share = (found[down] / (found[down] - goal[down]).clamp(min=1e-300)).min()
            found = found + share * (goal - found)
            free &= ~(down & (found <= 1e-15 * found.max()))
            found = torch.where(free, found, torch.zeros_like(found))
        found = goal
    return found


def _solve_free(matrix: Tensor, right: Tensor, free: Tensor) -> Tensor:
    """Solves for the free variables of each row; the others are zero."""
    if len(right) == 1:
        index = free[0].nonzero().flatten()
        solution = torch.zeros_like(right)
        factor, _ = torch.linalg.cholesky_ex(matrix[index][:, index])
        solution[0, index] = torch.cholesky_solve(right[0, index].unsqueeze(1), factor).flatten()
        return solution
    mask = free.to(matrix.dtype)
    blocks = matrix * mask.unsqueeze(1) * mask.unsqueeze(2)
    blocks.diagonal(dim1=1, dim2=2).add_(1 - mask)
    factors, _ = torch.linalg.cholesky_ex(blocks)
    return torch.cholesky_solve((right * mask).unsqueeze(2), factors).squeeze(2) * mask
