"""Evaluating the same batch again: the same random numbers, and no trace left."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook


class Replay:
    """Calls a function that runs the forward pass, once, and then again as often as a method looks around.

    Later calls start from the random state of the first, so that dropout draws the same masks, and leave the buffers
    of all modules that it calls as they were, so that the statistics of normalisation layers count a batch once.

    A module that was compiled in place, by `module.compile()`, and that the function calls itself is not seen; one that
    `torch.compile` returned is.

    Args:
        closure: runs the forward pass.

    Cost: a copy of the called modules' buffers.
    """

    def __init__(self, closure: Callable[[], Any]) -> None:
        self.closure = closure
        self._random = _random_state()
        self._kept: list[tuple[nn.Module, str, Tensor, Tensor]] = []

    def first(self) -> Any:
        """The result of the first call."""
        modules: dict[nn.Module, None] = {}

        def note(module: nn.Module, _: Any) -> None:
            # Inside of a compiled module the hook is traced to nothing; the module itself is called from outside.
            if not torch.compiler.is_compiling() and module not in modules:
                modules.update(dict.fromkeys(module.modules()))

        hook = register_module_forward_pre_hook(note)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Using `torch.compile")  # of hooks like this one
                found = self.closure()
        finally:
            hook.remove()
        self._kept = [
            (module, name, buffer, buffer.detach().clone())
            for module in modules
            for name, buffer in module._buffers.items()
            if buffer is not None
        ]
        return found

    def again(self) -> Any:
        """The result of one more call."""
        numbers, devices = self._random
        torch.clear_autocast_cache()  # it holds the weights of the call before
        with torch.random.fork_rng(devices=range(len(devices))):
            torch.set_rng_state(numbers)
            for device, state in enumerate(devices):
                torch.cuda.set_rng_state(state, device)
            try:
                return self.closure()
            finally:
                torch.clear_autocast_cache()
                for module, name, buffer, value in self._kept:
                    module._buffers[name] = buffer
                    buffer.data.copy_(value)  # not in the graph's sight: its backward is still to come


def _random_state() -> tuple[Tensor, list[Tensor]]:
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return torch.get_rng_state(), devices


@contextmanager
def moved(offsets: list[tuple[Tensor, Tensor]]) -> Iterator[None]:
    """Moves parameters by their offsets for as long as it lasts; afterwards they are what they were, to the bit."""
    kept = [(parameter, parameter.detach().clone()) for parameter, _ in offsets]
    try:
        for parameter, offset in offsets:
            parameter.data.add_(offset.to(parameter.dtype))
        yield
    finally:
        for parameter, value in kept:
            parameter.data.copy_(value)
