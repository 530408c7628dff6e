"""Heads: one feature per task to each task's raw outputs, without a loop over tasks."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from motet.tasks import Task


class Heads(nn.Module):
    """A small network for each task, all of them in two batched products.

    Weights are stacked (T, in, out); the last layer is as wide as the task with the most outputs, and a task reads
    its own first places.

    Args:
        tasks: fitted tasks, in the order of the sharing module's outputs.
        width: F, the size of each task's feature.
        hidden: size of each head's hidden layer; 0 for linear heads, without one.
        dropout: after the hidden layer.

    Cost: T · B · hidden · (F + widest task) multiplications.
    """

    def __init__(self, tasks: Sequence[Task], *, width: int, hidden: int = 64, dropout: float = 0.0) -> None:
        super().__init__()
        self.sizes = [task.num_outputs for task in tasks]
        self.weight_in = nn.Parameter(_uniform(len(tasks), width, hidden))
        self.bias_in = nn.Parameter(torch.zeros(len(tasks), 1, hidden))
        self.weight_out = nn.Parameter(_uniform(len(tasks), hidden or width, max(self.sizes)))
        self.bias_out = nn.Parameter(torch.zeros(len(tasks), 1, max(self.sizes)))
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Tensor, tasks: Sequence[int] | None = None) -> list[Tensor]:
        """Maps (T, B, F) to a list of (B, outputs of the task), for all tasks or for those numbered in `tasks`."""
        weights = [self.weight_in, self.bias_in, self.weight_out, self.bias_out]
        if tasks is not None:
            weights = [weight[list(tasks)] for weight in weights]
        weight_in, bias_in, weight_out, bias_out = weights
        if weight_in.shape[-1]:
            features = self.dropout(functional.relu(torch.baddbmm(bias_in, features, weight_in)))
        outputs = torch.baddbmm(bias_out, features, weight_out)
        sizes = self.sizes if tasks is None else [self.sizes[index] for index in tasks]
        # Unbound at once: the backward of T selections would fill T tensors of all tasks' outputs.
        widest = outputs.shape[-1]
        return [part if size == widest else part[:, :size] for part, size in zip(outputs.unbind(0), sizes, strict=True)]

    @torch.no_grad()
    def start_at(self, outputs: Sequence[Tensor]) -> None:
        """Sets the last biases so that each task begins at its constant baseline, given as (outputs,) a task."""
        for place, start in enumerate(outputs):
            self.bias_out[place, 0, : len(start)] = start.to(self.bias_out)


def _uniform(count: int, fan_in: int, fan_out: int) -> Tensor:
    bound = fan_in**-0.5
    return torch.empty(count, fan_in, fan_out).uniform_(-bound, bound)
