"""What methods have in common that read the Gramian and nothing else of the gradients."""

import torch
from torch import Tensor

from motet._errors import RequestError
from motet.balance._balancer import Balancer
from motet.balance.engine._sketch import Sketch, Source
from motet.balance.engine._view import View


class GramianBalancer(Balancer):
    """A method whose weights follow from the Gramian, which may be exact or estimated.

    Args:
        gramian: "exact"; or "sketch" or a `Sketch`, for an estimate from part of the rows.
        skip_bad: leave a task with a NaN or infinite loss out of the step instead of raising.

    Raises:
        RequestError: another word.
    """

    def __init__(self, *, gramian: Source = "exact", skip_bad: bool = False) -> None:
        super().__init__(skip_bad=skip_bad)
        if gramian not in {"exact", "sketch"} and not isinstance(gramian, Sketch):
            message = f"{type(self).__name__} got gramian={gramian!r}; pass 'exact', 'sketch' or a Sketch."
            raise RequestError(message)
        self.gramian = gramian
        if gramian != "exact":
            self.register_buffer("num_sketches", torch.zeros((), dtype=torch.int64))

    def gramian_of(self, view: View) -> Tensor:
        """Inner products (T, T) of the tasks' gradients, float64, exact or estimated as was asked for."""
        if self.gramian == "exact" or "gramian" in view.__dict__:
            return view.gramian
        sketch = Sketch() if isinstance(self.gramian, str) else self.gramian
        self.num_sketches += 1
        return view.sketched(sketch, int(self.num_sketches))

    def reset(self) -> None:
        """Forgets what the method has learned, and begins the draws of a sketch anew."""
        if self.gramian != "exact":
            self.num_sketches.zero_()
