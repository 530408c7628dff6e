"""Direction-oriented stochastic multi-objective gradient descent (SDMGrad)."""

from typing import ClassVar

import torch
from torch import Tensor

from motet.balance._balancer import Balancer, Update
from motet.balance._claims import Golden
from motet.balance.engine._view import View
from motet.balance.parts._folds import fold_rows
from motet.balance.parts._simplex import project_on_simplex


class SDMGrad(Balancer):
    """MGDA held near the mean gradient, with weights that do not share the noise of the gradient that they weigh.

    Choose it over MGDA and CAGrad when batches are small: their weights are biased by the batch's noise.

        A = J₁ J₂ᵀ / mean_k √(A_kk + 1e-4)²;  w = argmin_simplex ½ wᵀ A w + λ wᵀ A 1/K,  by projected momentum descent
        d = (J₃ᵀ w + λ J₃ᵀ 1/K) / (1 + λ),   J₁, J₂, J₃ from independent rows

    The batch's rows are dealt into three parts; the rows of each get the weights that the other two make. A batch of
    fewer than three rows gets equal weights.

    Args:
        strength: λ, the pull towards the mean gradient.
        num_steps: of the descent on the weights.
        skip_bad: leave a task with a NaN or infinite loss out of the step instead of raising.

    Raises:
        RequestError: from `backward`, without `features=`.

    Cost: one backward pass through the trunk and one through each head; 3 · `num_steps` products with a (T, T) matrix.

    Source: Xiao, Ban and Ji, Direction-oriented Multi-objective Learning: Simple and Provable Stochastic Algorithms,
        NeurIPS 2023, with λ = 0.3, 20 steps of rate 10 and momentum 0.5 of the released runs. Departures: three parts
        of one batch at the features, where the paper takes three batches at the parameters; the parts change roles, so
        that every row counts; A is made symmetric. The released code's three buffers are one and the same by mistake,
        so that its A is an ordinary Gramian; here they are three.
    """

    name: ClassVar[str] = "sdmgrad"
    needs_features = True
    claims: ClassVar[frozenset[str]] = frozenset({"mean when agreeing", "one task is plain"})
    golden: ClassVar[tuple[Golden, ...]] = ()

    def __init__(self, *, strength: float = 0.3, num_steps: int = 20, skip_bad: bool = False) -> None:
        super().__init__(skip_bad=skip_bad)
        self.strength, self.num_steps = strength, num_steps

    def update(self, view: View) -> Update:
        """Each part of the rows under the weights of the two others."""
        folds = fold_rows(view, 3)
        if folds is None:
            return Update(torch.full_like(view.losses, 1.0 / len(view.names)))
        # In the order of names, so that rounding, which the large rate multiplies, is the same in every order.
        order = sorted(range(len(view.names)), key=view.names.__getitem__)
        folds = [fold[order] for fold in folds]
        weights = [torch.empty_like(view.losses) for _ in folds]
        for fold, found in enumerate(weights):
            found[order] = self._weights(folds[(fold + 1) % 3], folds[(fold + 2) % 3])
        return Update(direction=torch.cat([_dealt(part, weights).flatten() for part in view.saliency]))

    def _weights(self, first: Tensor, second: Tensor) -> Tensor:
        matrix = first @ second.T
        matrix = 0.5 * (matrix + matrix.T)
        scale = (matrix.diagonal().clamp(min=0) + 1e-4).sqrt().mean() ** 2
        shares = descend(matrix / scale, strength=self.strength, num_steps=self.num_steps)
        return (shares + self.strength / len(shares)) / (1 + self.strength)


def descend(matrix: Tensor, *, strength: float, num_steps: int) -> Tensor:
    """Projected descent with momentum on ½ wᵀ A w + λ wᵀ A 1/K, from equal weights."""
    mean = torch.full_like(matrix[0], 1.0 / len(matrix))
    weights, velocity = mean, torch.zeros_like(mean)
    for _ in range(num_steps):
        velocity = 0.5 * velocity + matrix @ weights + strength * (matrix @ mean)
        weights = project_on_simplex(weights - 10.0 * velocity)
    return weights


def _dealt(saliency: Tensor, weights: list[Tensor]) -> Tensor:
    """The sum over tasks of the saliency (T, B, ...), row b under the weights of its part."""
    found = torch.empty_like(saliency[0])
    for fold, part in enumerate(weights):
        found[fold :: len(weights)] = torch.tensordot(part.to(saliency), saliency[:, fold :: len(weights)], dims=1)
    return found
