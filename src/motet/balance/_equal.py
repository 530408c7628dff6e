"""Equal weighting."""

from typing import ClassVar

import torch

from motet.balance._balancer import Balancer, Update
from motet.balance.engine._view import View


class EqualWeighting(Balancer):
    """Minimises the sum of the losses: the baseline that every other method must beat.

    Choose it first. With targets standardised inside their tasks, losses start at like sizes, and a plain sum is
    hard to beat.

        L = Σ_k L_k

    Cost: one backward pass.

    Source: the linear scalarisation (LS, EW) of every comparison in the field.

    Example:
        >>> w = torch.tensor(1.0, requires_grad=True)
        >>> EqualWeighting().backward({"a": 2 * w, "b": w}).weights
        {'a': 1.0, 'b': 1.0}
        >>> w.grad.item()
        3.0
    """

    name: ClassVar[str] = "equal"

    def update(self, view: View) -> Update:
        """All ones."""
        return Update(torch.ones_like(view.losses), heads=True)
