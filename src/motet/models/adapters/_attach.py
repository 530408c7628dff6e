"""Adapters onto a module, and off again."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from motet._errors import RequestError, suggest
from motet.models.adapters._adapter import Adapter
from motet.models.adapters._choose import Layers, chosen_layers
from motet.models.adapters._layer import AdapterLayer, Place, add_update
from motet.models.adapters._selection import Chosen, Selection


class Adapters:
    """Adapters that are on a module: says whose turn it is, counts them, folds them in, takes them off.

    `attach` makes it. The module keeps its class, its layers and their names; each adapted layer has a part `adapter`
    besides, so that `parameters()`, `to()`, `train()`, checkpoints and wrappers such as DDP see the adapters.

    Attributes:
        module: the adapted module.
        adapter: the settings.
        tasks: names.
        parts: what is added, by the name of the layer.

    Cost: a pass adds 2 · R · (in + out) operations a row and layer, R being what the adapter says; rows of T
        tasks mixed in one batch cost at most T times that, in two batched products.
    """

    def __init__(
        self, module: nn.Module, adapter: Adapter, parts: Mapping[str, AdapterLayer], selection: Selection
    ) -> None:
        self.module = module
        self.adapter = adapter
        self.tasks = selection.tasks
        self.parts = dict(parts)
        self._selection = selection
        self._was_trained: list[str] = []
        self._hooks: list[RemovableHandle] = []
        self.reattach()

    def __repr__(self) -> str:
        return f"Adapters({type(self.module).__name__}, {self.adapter!r}, tasks={list(self.tasks)})"

    def select(self, task: Chosen) -> None:
        """Says whose the following passes are: a task's by name, each row's by names or numbers (B,), or nobody's.

        Raises:
            RequestError: there is no such task.
        """
        self._selection.set(task, self._device())

    @contextmanager
    def using(self, task: Chosen) -> Iterator[None]:
        """`select` for as long as the block lasts. With gradient checkpointing, call backward inside it.

        Raises:
            RequestError: there is no such task.
        """
        before = self._selection.task, self._selection.rows
        self._selection.set(task, self._device())
        try:
            yield
        finally:
            self._selection.task, self._selection.rows = before

    def parameters(self) -> list[nn.Parameter]:
        """The adapters' trainable parameters, for an optimiser."""
        return [value for value in self._named().values() if isinstance(value, nn.Parameter) and value.requires_grad]

    def num_parameters(self) -> int:
        """How many numbers the adapters train."""
        return sum(parameter.numel() for parameter in self.parameters())

    def state_dict(self) -> dict[str, Tensor]:
        """The adapters alone, by layer and part; what layers share stands once."""
        return {name: value.detach() for name, value in self._named().items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Puts in what `state_dict` gave.

        Raises:
            RequestError: a tensor is missing, unknown, or of another shape.
        """
        own = self._named()
        for name in [*own, *state]:
            if name not in state or name not in own:
                side, names = ("lacks", state) if name not in state else ("has", own)
                message = (
                    f"The state {side} '{name}'; it was expected to fit {self!r}.{suggest(name, names)} Attach the "
                    "same adapter to the same layers first."
                )
                raise RequestError(message)
            if state[name].shape != own[name].shape:
                message = (
                    f"'{name}' has shape {tuple(state[name].shape)} in the state; here it is {tuple(own[name].shape)}. "
                    "Attach with the same settings and tasks first."
                )
                raise RequestError(message)
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(state[name])

    def merged(self, task: str | None = None) -> nn.Module:
        """A plain copy of the module with a task's update folded into the weights; this one stays as it is.

        Raises:
            RequestError: there is no such task, a task is needed, or the update is no matrix.
        """
        number = self.number(task)
        copied = copy.deepcopy(self)
        for name, part in copied.parts.items():
            layer: Any = copied.module.get_submodule(name)
            layer.weight = _folded(layer.weight, part.matrix(number), name)
        return copied.detach()

    def number(self, task: str | None) -> int | None:
        """Where a task stands among the tasks; None for none.

        Raises:
            RequestError: there is no such task.
        """
        return None if task is None else self._selection.number(task)

    def detach(self) -> nn.Module:
        """Takes the adapters off and gives the module back as it came; the parts stay here, with what they learned."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        for name, part in self.parts.items():
            layer = self.module.get_submodule(name)
            if getattr(layer, "adapter", None) is part:
                del layer.adapter
        for name, weight in self.module.named_parameters():
            weight.requires_grad_(name in self._was_trained)
        return self.module

    def reattach(self) -> None:
        """Puts the adapters onto their module again, after `detach`, and freezes the rest of it.

        Raises:
            RequestError: the module has adapters already.
        """
        check_bare(self.module)
        self._was_trained = [name for name, weight in self.module.named_parameters() if weight.requires_grad]
        self.module.requires_grad_(requires_grad=False)
        for name, part in self.parts.items():
            layer = self.module.get_submodule(name)
            layer.add_module("adapter", part)
            self._hooks.append(layer.register_forward_hook(add_update, with_kwargs=True))

    def _device(self) -> torch.device:
        return next(next(iter(self.parts.values())).parameters()).device

    def _named(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        seen: set[int] = set()
        for layer, part in self.parts.items():
            for name, value in [*part.named_parameters(), *part.named_buffers()]:
                if id(value) not in seen:
                    seen.add(id(value))
                    found[f"{layer}.{name}" if layer else name] = value
        return found


def attach(
    module: nn.Module, adapter: Adapter, *, layers: Layers = "*", tasks: Sequence[str] = (), seed: int = 0
) -> Adapters:
    """Puts adapters onto linear layers of any module, in place, and freezes the rest of it.

    Args:
        module: any module with torch.nn.Linear layers.
        adapter: what to put on, such as TaskLoRA(rank=8).
        layers: patterns for whole names, separated by `|`, such as "*.query|*.value"; or a function of name and layer.
        tasks: names of the tasks; an adapter that all share needs none.
        seed: of the adapters' first values.

    Returns:
        what says whose turn it is, and takes the adapters off again.

    Raises:
        RequestError: no layer matches, the module has adapters already, names of tasks are missing or not unique, or
            the adapter does not fit a layer.

    Example:
        >>> import torch
        >>> from motet.models.adapters import TaskLoRA, attach
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 3))
        >>> adapters = attach(net, TaskLoRA(rank=2), tasks=["a", "b"])
        >>> with adapters.using("a"): print(tuple(net(torch.ones(5, 4)).shape), adapters.num_parameters())
        (5, 3) 28
    """
    check_bare(module)
    if adapter.needs_tasks and not tasks:
        message = f"{adapter!r} has something for each task, and no task was named. Give tasks=['a', 'b'], say."
        raise RequestError(message)
    selection = Selection(tasks)
    generator = torch.Generator().manual_seed(seed)
    found = chosen_layers(module, layers)
    places = [Place(name, layer, selection, generator) for name, layer in found.items()]
    parts = dict(zip(found, adapter.layers(places), strict=True))
    for part in parts.values():
        part.train(module.training)
    return Adapters(module, adapter, parts, selection)


def check_bare(module: nn.Module) -> None:
    """Refuses a module that has adapters.

    Raises:
        RequestError: it has some.
    """
    worn = [name for name, part in module.named_modules() if isinstance(part, AdapterLayer)]
    if worn:
        message = (
            f"The module has adapters already, at '{worn[0].removesuffix('adapter').rstrip('.')}' first; a module "
            "without any was expected. Call `detach()` on what `attach` gave."
        )
        raise RequestError(message)


def _folded(weight: nn.Parameter, update: Tensor, name: str) -> nn.Parameter:
    if not weight.dtype.is_floating_point or weight.shape != update.shape:
        message = (
            f"The weight of '{name}' is {weight.dtype} of shape {tuple(weight.shape)}; plain floating-point numbers of "
            f"shape {tuple(update.shape)} can take an update. Load the model without quantisation to fold adapters in."
        )
        raise RequestError(message)
    return nn.Parameter((weight.to(update.dtype) + update).detach().to(weight.dtype))
