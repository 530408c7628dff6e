"""Random loss weighting (RLW)."""

from typing import ClassVar

import torch
from torch import Tensor

from motet.balance._balancer import Balancer, Update
from motet.balance.engine._view import View


class RandomLossWeighting(Balancer):
    """Draws new weights at every step: no tuning, and noise that can lead out of a poor balance.

        w = K · softmax(z),  z ~ N(0, I);  L = Σ_k w_k L_k

    Args:
        seed: of the stream of weights.
        skip_bad: leave a task with a NaN or infinite loss out of the step instead of raising.

    Cost: one backward pass.

    Source: Lin et al., Reasonable Effectiveness of Random Weighting, TMLR 2022, with the normal distribution of its
        released code. Departures: weights sum to K, not to 1, so that a learning rate that suits the plain sum stays
        right; the random stream is a function of the seed and a saved step count, so that a resumed run goes on.
    """

    name: ClassVar[str] = "random"

    def __init__(self, *, seed: int = 0, skip_bad: bool = False) -> None:
        super().__init__(skip_bad=skip_bad)
        self.seed = seed
        self.steps: Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def update(self, view: View) -> Update:
        """Fresh random weights."""
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + int(self.steps)) % 2**31)
        self.steps += 1
        weights = torch.softmax(torch.randn(len(view.names), generator=generator), dim=0) * len(view.names)
        return Update(weights.to(view.losses), heads=True)

    def reset(self) -> None:
        """Starts the stream of weights again."""
        self.steps.zero_()
