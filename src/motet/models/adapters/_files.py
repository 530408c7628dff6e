"""Adapters in a file of their own."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from motet._errors import RequestError
from motet.models.adapters._attach import Adapters, attach
from motet.models.adapters._catalogue import described, from_name

_FORMAT = 1
_KEY = "motet_adapters"


def save(adapters: Adapters, path: str | Path) -> None:
    """Writes adapters alone, without the module, into one safetensors file; a file of that name is replaced.

    Args:
        adapters: what `attach` gave.
        path: of the file.

    Raises:
        RequestError: the folder does not exist.
    """
    path = Path(path)
    if not path.parent.is_dir():
        message = f"'{path.parent}' is no folder; adapters go into a file in one that exists. Make it first."
        raise RequestError(message)
    head = {
        "format": _FORMAT,
        "adapter": described(adapters.adapter),
        "tasks": list(adapters.tasks),
        "layers": list(adapters.parts),
    }
    tensors = {name: value.contiguous() for name, value in adapters.state_dict().items()}
    beside = path.with_name(f"{path.name}.part")
    save_file(tensors, beside, metadata={_KEY: json.dumps(head)})
    beside.replace(path)


def load(module: nn.Module, path: str | Path) -> Adapters:
    """Puts adapters from a file onto the module that they were trained on, or onto one of the same layers.

    Args:
        module: with the same names of layers.
        path: of a file that `save` wrote.

    Raises:
        RequestError: the file is of another kind or format, or does not fit the module.
    """
    head, tensors = _read(Path(path))
    if head["format"] > _FORMAT:
        message = (
            f"'{path}' has format {head['format']}; this version of motet reads up to {_FORMAT}. Install a newer motet."
        )
        raise RequestError(message)
    names = set(head["layers"])
    linear = {name for name, part in module.named_modules() if isinstance(part, nn.Linear)}
    if names - linear:
        message = (
            f"'{path}' adapts the layer '{min(names - linear)}', which {type(module).__name__} does not have as a "
            "linear layer; the module of the training was expected. Give that one."
        )
        raise RequestError(message)
    adapter = from_name(head["adapter"]["name"], head["adapter"]["settings"])
    found = attach(module, adapter, layers=lambda name, _: name in names, tasks=head["tasks"])
    try:
        found.load_state_dict(tensors)
    except RequestError:
        found.detach()
        raise
    return found


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        message = f"'{path}' cannot be read as a safetensors file ({error}). Give a file that `save` wrote."
        raise RequestError(message) from error
    if _KEY not in metadata:
        message = (
            f"'{path}' is no file of motet's adapters; one that `save` wrote was expected. A folder of PEFT is read by "
            "`load_peft`."
        )
        raise RequestError(message)
    return json.loads(metadata[_KEY]), tensors
