"""Accumulation of the tasks' gradients over micro-batches."""

import weakref
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from motet._errors import RequestError
from motet.balance._balancer import Balancer
from motet.balance._gcond import GCond
from motet.balance.around._given import GivenView, direction_of, head_weights
from motet.balance.around._task_gradients import (
    TaskGradient,
    fill,
    overflowed,
    shared_parameters,
    task_gradient,
)
from motet.balance.around._wrapper import Wrapper, check_takes_gradients
from motet.balance.engine._batch import Batch
from motet.balance.engine._setting import OverflowedError, own_gradients
from motet.balance.engine._update import Step
from motet.balance.parts._per_task import PerTask

Share = Literal["every", "one"]


class Accumulation(Wrapper):
    """Gathers every task's gradient over several micro-batches, and balances them once, at the last.

    Choose it where the batch that a method needs does not fit, or where gradients of one batch are too noisy to
    compare. `.grad` stays as it is until the last micro-batch; step the optimiser when `step.ready`.

        ḡ_k = mean of g_k over the micro-batches that had task k;   d = Agg(ḡ_1 … ḡ_K) at every N-th

    Args:
        inner: Agg, a method that decides from gradients; GCond, which was made for this, when it is left out.
        num_batches: N micro-batches to one update.
        share: `every` task of a micro-batch gives its gradient; or `one` does, that which has waited longest, at the
            cost of plain accumulation. `choose` tells which, before the batch is made.

    Raises:
        RequestError: a bad number or share, or a method inside that needs more than gradients; from `backward`, no
            `shared`, or a task that reaches other parameters of its own than before.

    With a scaler, a micro-batch whose scaled gradients overflow does not count: its step is ready, with `.grad` NaN, so
    that the scaler lowers its scale, and the window goes on.

    Cost: a backward pass a task and micro-batch, or one a micro-batch; (K, P) numbers and the heads' gradients, kept
        from call to call, and over several processes averaged at each. They are saved: a window goes on in a fresh
        instance, but for the own parameters of a task that does not come again in that window.

    Source: the accumulation of GCond, Limarenko et al., GCond: Gradient Conflict Resolution via Accumulation-based
        Stabilization for Large-Scale Multi-Task Learning, 2025, sequential (`every`) and stochastic (`one`).
        Departures: sums have the gradients' dtype, at least float32, not bf16; the mean is over the micro-batches that
        had the task; turns go round, and on over the window's end; statistics of normalisation layers are the caller's
        matter (the released code freezes them).
    """

    name: ClassVar[str] = "accumulation"
    needs_network = True

    def __init__(self, inner: Balancer | None = None, *, num_batches: int = 4, share: Share = "every") -> None:
        inner = inner or GCond()
        check_takes_gradients("Accumulation", inner)
        if num_batches < 1 or share not in get_args(Share):
            message = (
                f"Accumulation got num_batches={num_batches} and share={share!r}; a number of 1 or more, and 'every' "
                "or 'one' were expected. Try num_batches=4."
            )
            raise RequestError(message)
        super().__init__(inner)
        self.place = "parameters"
        self.num_batches, self.share = num_batches, share
        self.rows, self.own, self.losses, self.counts = PerTask(), PerTask(), PerTask(), PerTask()
        self.turns = PerTask()
        self._own_leaves: dict[str, list[weakref.ref[Tensor]]] = {}
        self.steps: Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def choose(self, tasks: Iterable[str]) -> tuple[str, ...]:
        """The tasks among these whose gradients the next micro-batch gives; asking does not use up the turn."""
        tasks = tuple(tasks)
        if self.share == "every" or not tasks:
            return tasks
        return (tasks[int(self.turns.rows(tasks, torch.tensor(0)).argmin())],)

    def take(self, batch: Batch) -> Step:
        """Adds this micro-batch's gradients, and balances them if it is the last."""
        shared = shared_parameters(batch, "Accumulation")
        chosen = self.choose(batch.losses)
        try:
            grads = [task_gradient(batch, task, shared) for task in chosen]
        except OverflowedError:
            return overflowed(batch)
        for task, grad in zip(chosen, grads, strict=True):
            self._add(task, batch.measured[task], grad)
        self.steps += 1
        self.turns.set(chosen, self.steps.expand(len(chosen)))
        if int(self.steps) % self.num_batches:
            return Step({}, batch.skipped, ready=False)
        step = self._balanced(batch, shared, torch.zeros_like(grads[0].row))
        self._forget_window()
        return replace(step, skipped=batch.skipped)

    def reset(self) -> None:
        """Forgets the window and the turns, and what the method inside has learned."""
        self.inner.reset()
        self._forget_window()
        self.turns.reset()
        self.steps.zero_()

    def _forget_window(self) -> None:
        for state in (self.rows, self.own, self.losses, self.counts):
            state.reset()
        self._own_leaves.clear()

    def _add(self, task: str, loss: Tensor, grad: TaskGradient) -> None:
        leaves = [leaf for leaf, _ in grad.own]
        known = self._own_leaves.setdefault(task, [weakref.ref(leaf) for leaf in leaves])
        if len(known) != len(leaves) or any(ref() is not leaf for ref, leaf in zip(known, leaves, strict=True)):
            message = (
                f"Task '{task}' reaches other parameters of its own than in an earlier micro-batch; the same were "
                "expected until the update. Call reset() after changing the model."
            )
            raise RequestError(message)
        row = grad.row
        own = torch.cat([row[:0], *(value.flatten().to(row) for _, value in grad.own)])
        value = loss.double()
        for state, new in (
            (self.rows, row),
            (self.own, own),
            (self.losses, value),
            (self.counts, torch.ones_like(value)),
        ):
            state.set([task], state.rows([task], torch.zeros_like(new)) + new)

    def _balanced(self, batch: Batch, shared: Sequence[Tensor], zero: Tensor) -> Step:
        """Fills `.grad` from the window's means."""
        names = self.rows.tasks
        one = torch.zeros((), dtype=torch.float64, device=zero.device)
        counts = self.counts.rows(names, one)
        rows = self.rows.rows(names, zero) / counts.to(zero).unsqueeze(1)
        losses = dict(zip(names, self.losses.rows(names, one) / counts, strict=True))
        view = GivenView(losses, rows, method="Accumulation")
        with own_gradients(batch.setting, self.parameters()):
            update = self.inner.update(view)
        own = [self._own_mean(name, zero) for name in names]
        fill(batch, shared, direction_of(update, rows), own, head_weights(update))
        weights = {} if update.weights is None else dict(zip(names, update.weights.tolist(), strict=True))
        return Step(weights, gramian=view.formed, tasks=names)

    def _own_mean(self, task: str, zero: Tensor) -> TaskGradient:
        leaves = [leaf for ref in self._own_leaves.get(task, []) if (leaf := ref()) is not None]
        sizes = [leaf.numel() for leaf in leaves]
        if not sizes:
            return TaskGradient([], [])
        one = torch.zeros((), dtype=zero.dtype, device=zero.device)
        flat = self.own.rows([task], zero.new_zeros(sum(sizes)))[0] / self.counts.rows([task], one)[0]
        grads = [part.reshape(leaf.shape) for part, leaf in zip(flat.split(sizes), leaves, strict=True)]
        return TaskGradient([], list(zip(leaves, grads, strict=True)))
