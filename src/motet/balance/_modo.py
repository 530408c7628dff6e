"""Multi-objective gradients with double sampling (MoDo)."""

from typing import ClassVar

from motet.balance._balancer import Balancer, Update
from motet.balance._claims import Golden
from motet.balance.engine._view import View
from motet.balance.parts._folds import fold_rows
from motet.balance.parts._per_task import PerTask
from motet.balance.parts._simplex import project_on_simplex


class MoDo(Balancer):
    """Moves its weights slowly towards MGDA's, along an unbiased estimate from two halves of the batch.

    Choose it over SDMGrad when weights should change little from step to step; at the default rate they stay near
    equal for some thousand steps, which is what its authors found to generalise.

        w ← Π_simplex(w − γ (J₁ J₂ᵀ w + ρ w));  d = Jᵀ w,   J₁, J₂ from independent rows

    The batch's even rows are the one half and the odd rows the other. A batch of one row leaves the weights alone.

    Args:
        gamma: γ.
        rho: ρ, which draws the weights together.
        skip_bad: leave a task with a NaN or infinite loss out of the step instead of raising.

    Raises:
        RequestError: from `backward`, without `features=`.

    Cost: one backward pass through the trunk and one through each head, and one number a task.

    Source: Chen et al., Three-Way Trade-Off in Multi-Objective Learning: Optimization, Generalization and
        Conflict-Avoidance, NeurIPS 2023, with γ = 0.001 and ρ = 0.1 of LibMTL. Departures: two halves of one batch at
        the features, where the paper takes independent batches at the parameters; d is over all rows, where the paper
        draws a third batch, since w moves by γ a step and so hardly depends on them; J₁ J₂ᵀ is made symmetric.
    """

    name: ClassVar[str] = "modo"
    needs_features = True
    claims: ClassVar[frozenset[str]] = frozenset({"mean when agreeing", "one task is plain"})
    golden: ClassVar[tuple[Golden, ...]] = ()

    def __init__(self, *, gamma: float = 1e-3, rho: float = 0.1, skip_bad: bool = False) -> None:
        super().__init__(skip_bad=skip_bad)
        self.gamma, self.rho = gamma, rho
        self.weights = PerTask()

    def update(self, view: View) -> Update:
        """The weights after one step of theirs."""
        folds = fold_rows(view, 2)
        weights = self.weights.rows(view.names, view.losses.new_full((), 1.0 / len(view.names)))
        weights = project_on_simplex(weights)
        if folds is not None:
            matrix = folds[0] @ folds[1].T
            pull = 0.5 * (matrix + matrix.T) @ weights + self.rho * weights
            weights = project_on_simplex(weights - self.gamma * pull)
            self.weights.set(view.names, weights)
        return Update(weights)

    def reset(self) -> None:
        """Starts from equal weights again."""
        self.weights.reset()
